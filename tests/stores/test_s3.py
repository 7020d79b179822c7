"""The pipeline's promises on real S3 stores, and through a proxy that spoils a tenth of the requests."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipelines.output.commit import PublishedShard
from pipelines.output.store.object_store import ObjectStore
from pipelines.run.job import prepare
from scorer.errors import StoreError
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.faults.fault_points import digest
from tests.pipelines.helpers import ROWS, SHARDS, RecordingWatch, make_job, published, run
from tests.stores import Endpoint
from tests.stores.conftest import new_bucket
from tests.stores.proxy import faulting

UNITS = 8
FAULT_SEEDS = range(3)


@pytest.fixture(scope="session")
def expected(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run into a directory publishes."""
    output = tmp_path_factory.mktemp("expected") / "out"
    run(make_job(dataset, output))
    return published(output)


def assert_exact(url: str, expected: dict[str, bytes]) -> None:
    store = ObjectStore(url)
    assert {name: store.get(name) for name in SHARDS} == expected
    sizes = store.sizes()
    assert sum(key.startswith("_commits/") for key in sizes) == UNITS
    for key in sizes:
        if key.startswith("_published/"):
            shard = PublishedShard.from_bytes(store.get(key))
            assert (shard.size, shard.sha256) == (len(expected[shard.name]), digest(expected[shard.name]))
    assert json.loads(store.get("_SUCCESS"))["rows"] == ROWS


def at_once(count: int, call: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def test_a_bucket_gets_the_same_bytes_as_a_directory(bucket: str, dataset: Path, expected: dict[str, bytes]) -> None:
    run(make_job(dataset, f"{bucket}/out"))
    assert_exact(f"{bucket}/out", expected)
    before = ObjectStore(f"{bucket}/out").sizes()
    watch = RecordingWatch()
    run(make_job(dataset, f"{bucket}/out"), watch)
    assert watch.rows == 0
    assert ObjectStore(f"{bucket}/out").sizes() == before


@pytest.mark.parametrize("name", ["swift_store", "ceph_store"])
def test_of_racing_creators_one_wins(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(f"{new_bucket(request.getfixturevalue(name), monkeypatch)}/out")
    for number in range(10):
        won = at_once(8, lambda who, key=f"marker-{number}": store.create(key, str(who).encode()))
        assert won.count(True) == 1
        assert store.get(f"marker-{number}") == str(won.index(True)).encode()


@pytest.mark.parametrize("name", ["swift_store", "lax_store", "ceph_store"])
def test_jobs_beside_each_other(
    name: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    dataset: Path,
    expected: dict[str, bytes],
) -> None:
    url = f"{new_bucket(request.getfixturevalue(name), monkeypatch)}/out"
    summaries = at_once(2, lambda _: run(make_job(dataset, url)))
    assert [summary["rows"] for summary in summaries] == [ROWS, ROWS]
    assert_exact(url, expected)


@pytest.mark.parametrize("seed", FAULT_SEEDS)
def test_a_job_through_faults_is_exact(
    swift_store: Endpoint, monkeypatch: pytest.MonkeyPatch, dataset: Path, expected: dict[str, bytes], seed: int
) -> None:
    url = f"{new_bucket(swift_store, monkeypatch)}/out"
    with faulting(swift_store.url, seed=seed) as proxy:
        swift_store.use(monkeypatch, AWS_ENDPOINT_URL=proxy.url)
        assert run(make_job(dataset, url))["rows"] == ROWS
    assert proxy.faults.total() >= 3, "or the test shows nothing"
    swift_store.use(monkeypatch)
    assert_exact(url, expected)


def test_every_kind_of_fault_is_overcome(swift_store: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{new_bucket(swift_store, monkeypatch)}/out"
    seen = Counter[str]()
    with faulting(swift_store.url, rate=0.3, seed=1) as proxy:
        swift_store.use(monkeypatch, AWS_ENDPOINT_URL=proxy.url)
        store = ObjectStore(url)
        for number in range(25):
            data = b"x" * (1000 + number)
            assert store.create(f"created/{number}", data)
            assert not store.create(f"created/{number}", b"another")
            assert store.get(f"created/{number}") == data, "never torn"
        assert len(store.sizes()) == 25
        seen.update(proxy.faults)
    kinds = {"slow_down", "conflict", "refused", "reset", "slow", "half_sent", "truncated", "lost"}
    assert set(seen) == kinds


def test_what_raises_while_it_is_written_is_never_visible(bucket: str) -> None:
    store = ObjectStore(f"{bucket}/out")
    with pytest.raises(RuntimeError), store.staged("shard.parquet") as file:
        file.write(b"half of it")
        raise RuntimeError
    assert store.sizes() == {}


# --- refused before any model is loaded -------------------------------------------------------------------------


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: FakeEngine) -> None:
        raise AssertionError("a model was loaded")

    for name in ("encoder", "scorer", "fingerprint"):
        monkeypatch.setattr(FakeEngine, name, refuse)


def refused(dataset: Path, url: str) -> str:
    started = time.monotonic()
    with pytest.raises(StoreError) as caught:
        prepare(make_job(dataset, url))
    assert time.monotonic() - started < 30, "seconds, on a busy machine"
    return str(caught.value)


@pytest.mark.usefixtures("no_model", "bucket")
def test_a_missing_bucket(dataset: Path) -> None:
    message = refused(dataset, "s3://there-is-no-such-bucket/out")
    assert "there is no such bucket: create it first, or correct its name in --output" in message


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("changed", "remedy"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "the secret key is wrong: check AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_wrong_credentials(
    swift_store: Endpoint,
    bucket: str,
    dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, str],
    remedy: str,
) -> None:
    swift_store.use(monkeypatch, **changed)
    assert remedy in refused(dataset, f"{bucket}/out")


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        ((400, "ExpiredToken"), "the session token has expired: renew the credentials"),
        ((403, "AccessDenied"), "grant these credentials listing, reading and writing there"),
        ((403, "RequestTimeTooSkewed"), "set this machine's clock"),
    ],
)
def test_what_a_store_refuses(
    swift_store: Endpoint,
    bucket: str,
    dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: tuple[int, str],
    remedy: str,
) -> None:
    with faulting(swift_store.url) as proxy:
        proxy.always = answer
        swift_store.use(monkeypatch, AWS_ENDPOINT_URL=proxy.url)
        assert remedy in refused(dataset, f"{bucket}/out")
