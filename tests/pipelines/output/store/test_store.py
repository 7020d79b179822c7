from __future__ import annotations

import errno
import multiprocessing
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipelines.output.store import Store, object_store, open_store
from pipelines.output.store.local import LocalStore
from pipelines.output.store.object_store import ObjectStore
from scorer.errors import ConfigError, StoreError

KEYS = [f"_commits/{i}.json" for i in range(40)]


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "local":
        yield open_store(str(tmp_path / "out"))
        return
    root = f"memory://test-{uuid.uuid4().hex}"
    yield open_store(root)
    fsspec.filesystem("memory").rm(root, recursive=True)


def test_put_replaces_and_create_does_not(store: Store) -> None:
    store.put("a/b", b"1")
    store.put("a/b", b"2")
    assert store.get("a/b") == b"2"
    assert not store.create("a/b", b"3")
    assert store.get("a/b") == b"2"
    assert store.create("c", b"4")
    assert store.sizes() == {"a/b": 1, "c": 1}


def test_what_is_absent_is_absent(store: Store) -> None:
    store.put("there", b"")
    with pytest.raises(FileNotFoundError):
        store.get("absent")


def test_a_new_output_is_empty(tmp_path: Path) -> None:
    assert open_store(str(tmp_path / "absent")).sizes() == {}


def test_a_staged_object_appears_whole_or_not_at_all(store: Store) -> None:
    store.put("other", b"")
    with store.staged("sub/file") as file:
        file.write(b"first, ")
        assert "sub/file" not in store.sizes()
        file.write(b"second")
    assert store.get("sub/file") == b"first, second"
    with pytest.raises(RuntimeError), store.staged("sub/file") as file:
        file.write(b"half of it")
        raise RuntimeError
    assert store.get("sub/file") == b"first, second"
    assert set(store.sizes()) == {"other", "sub/file"}


def test_nothing_is_left_beside_local_objects(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.create("a", b"1")
    store.create("a", b"2")
    with pytest.raises(RuntimeError), store.staged("b"):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_hidden_names_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".b.parquet.temporary").write_bytes(b"left by a killed process")
    (tmp_path / "b.parquet").write_bytes(b"1")
    assert LocalStore(str(tmp_path)).sizes() == {"b.parquet": 1}


def test_local_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    store = LocalStore(str(tmp_path))
    store.put("put", b"")
    store.create("created", b"")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1, "a mode of its own would keep other users from reading the output"


def race(root: str, who: int) -> list[str]:
    store = LocalStore(root)
    return [key for key in KEYS if store.create(key, str(who).encode())]


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_of_racing_creators_one_wins(tmp_path: Path, kind: str) -> None:
    pool: Any
    if kind == "threads":
        pool = ThreadPoolExecutor(8)
    else:
        pool = ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("forkserver"))
    with pool:
        won = list(pool.map(race, [str(tmp_path)] * 8, range(8)))
    assert sorted(key for keys in won for key in keys) == sorted(KEYS)
    for who, keys in enumerate(won):
        for key in keys:
            assert (tmp_path / key).read_bytes() == str(who).encode(), "the winner's own bytes are what is stored"


def test_a_store_without_conditional_create_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot create an object only if it is absent"):
        open_store("https://example.org/bucket")


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ConfigError, match="nosuch"):
        open_store("nosuch://bucket/x")


@pytest.mark.parametrize("error", [FileExistsError("taken"), OSError(errno.EINVAL, "PreconditionFailed")])
def test_both_ways_in_which_stores_report_a_lost_race(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    monkeypatch.setattr(object_store, "PAUSES", (0.0, 0.0))
    store = ObjectStore(f"memory://lost-{uuid.uuid4().hex}")
    store.put("key", b"winner")

    def lose(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", lose)
    assert store.create("key", b"loser") is False
    if error.errno == errno.EINVAL:
        with pytest.raises(StoreError, match="PreconditionFailed"):  # nothing is there: it was another EINVAL
            store.create("absent", b"loser")


def test_another_error_of_a_create_is_not_a_lost_race(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", fail)
    with pytest.raises(StoreError, match="no; check AWS_ACCESS_KEY_ID"):
        ObjectStore("memory://denied").create("key", b"")
