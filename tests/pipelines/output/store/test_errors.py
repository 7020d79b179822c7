"""What cannot be written to says so at once, names the remedy, and lets no model load."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipelines.cli import options, score
from pipelines.output.store import object_store, open_store
from pipelines.output.store.errors import store_error
from pipelines.output.store.local import LocalStore
from pipelines.output.store.object_store import ObjectStore
from pipelines.run.job import prepare
from scorer.errors import OtherRunError, StoreError
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import SHARDS, make_job, published, snapshot

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: FakeEngine) -> None:
        raise AssertionError("a model was loaded")

    for name in ("encoder", "scorer"):
        monkeypatch.setattr(FakeEngine, name, refuse)


def fail_on(monkeypatch: pytest.MonkeyPatch, call: str, error: OSError) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(os, call, fail)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "the disk is full: free space there"),
        (errno.EDQUOT, "the quota is used up: free space there"),
        (errno.EROFS, "mount it writable"),
        (errno.EACCES, "change its permissions"),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.usefixtures("no_model")
def test_an_output_that_takes_no_writes_is_refused_before_any_model_is_loaded(
    dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str, begun: bool
) -> None:
    if begun:
        prepare(make_job(dataset, output))
    before = snapshot(output) if begun else None
    fail_on(monkeypatch, "fsync", OSError(number, os.strerror(number)))
    with pytest.raises(StoreError, match=f"output {output} cannot be written to: .*{remedy}"):
        prepare(make_job(dataset, output))
    assert not begun or snapshot(output) == before


def test_a_disk_that_fills_up_later_ends_the_run_with_the_remedy(
    dataset: Path,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(options, "CheckpointEngine", lambda model, config, revision: FakeEngine())
    command = ["--input", str(dataset), "--output", str(output), "--executor", "local", "--rows-per-unit", "5"]
    command += ["--max-failed-rows", "4"]  # as many as are planted
    link, left = os.link, [6]

    def fill(*args: Any, **kwargs: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise FULL
        link(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", fill)
        assert score.main([*command, "--no-report"]) == score.STOPPED
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "free space there and run the same command again" in said
    assert score.main([*command, "--no-report"]) == 0
    assert [path.name for path in output.rglob(".*")] == [], "nothing half-written is left"


def test_a_full_folder_for_temporary_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore("memory://staged")
    expected = r"the folder for temporary files, .* TMPDIR .*: .*the disk is full"
    with pytest.raises(StoreError, match=expected), store.staged("key"):
        raise FULL
    assert store.sizes() == {}


class ClientError(Exception):
    """As botocore raises it."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


def from_store(error: OSError, code: str) -> OSError:
    """As s3fs raises it."""
    error.__cause__ = ClientError(code)
    return error


NoCredentialsError = type("NoCredentialsError", (Exception,), {})


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (from_store(FileNotFoundError("no"), "NoSuchBucket"), "there is no such bucket: create it first"),
        (from_store(PermissionError("no"), "ExpiredToken"), "the session token has expired: renew the credentials"),
        (from_store(PermissionError("no"), "SignatureDoesNotMatch"), "check AWS_ACCESS_KEY_ID"),
        (from_store(PermissionError("no"), "InvalidAccessKeyId"), "the access key is unknown"),
        (from_store(PermissionError("no"), "AccessDenied"), "grant these credentials"),
        (from_store(OSError(errno.ENOSYS, "no"), "NotImplemented"), "lacks conditional creates"),
        (PermissionError("no"), "check AWS_ACCESS_KEY_ID"),
        (NoCredentialsError("no"), "set AWS_ACCESS_KEY_ID"),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_what_no_other_try_can_mend_is_not_tried_again(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, remedy: str
) -> None:
    calls = []

    def fail(*_: Any, **__: Any) -> None:
        calls.append(1)
        raise error

    monkeypatch.setattr(MemoryFileSystem, "find", fail)
    started = time.monotonic()
    with pytest.raises(StoreError, match=f"output memory://.* cannot be listed: .*no; .*{remedy}"):
        prepare(make_job(dataset, "memory://bucket/out"))
    assert len(calls) == 1
    assert time.monotonic() - started < 10


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "PAUSES", (0.0, 0.0, 0.0))


class EndpointConnectionError(Exception):
    """As botocore raises it."""


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("call", "tries"), [(lambda store: store.sizes(), 1), (lambda store: store.put("key", b""), 4)]
)
def test_a_store_that_is_out_of_reach_is_waited_for_only_once_it_was_in_reach(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[ObjectStore], object], tries: int
) -> None:
    calls = []

    def fail(*_: Any, **__: Any) -> None:
        calls.append(1)
        raise EndpointConnectionError("nobody there")

    for name in ("find", "pipe_file"):
        monkeypatch.setattr(MemoryFileSystem, name, fail)
    with pytest.raises(StoreError, match="nobody there; check AWS_ENDPOINT_URL and the network"):
        call(ObjectStore("memory://away"))
    assert len(calls) == tries


@pytest.mark.usefixtures("hasty")
def test_what_passes_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore("memory://flaky")
    pipe_file, errors = MemoryFileSystem.pipe_file, [OSError(errno.EBUSY, "SlowDown"), TimeoutError("lost")]

    def flaky(self: MemoryFileSystem, *args: Any, **kwargs: Any) -> None:
        error = errors.pop() if errors else None
        if isinstance(error, TimeoutError) or error is None:
            pipe_file(self, *args, **kwargs)  # carried out, whatever is answered
        if error is not None:
            raise error

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", flaky)
    assert store.create("key", b"mine"), "whose first answer was lost has won"
    assert not errors
    assert not store.create("key", b"another's")
    assert store.get("key") == b"mine"


def test_errors_read_well() -> None:
    error = store_error("output s3://bucket", "listed", TimeoutError())
    assert str(error) == (
        "output s3://bucket cannot be listed: TimeoutError; check that the storage is reachable, then run the same "
        "command again"
    )


# --- beside another run -----------------------------------------------------------------------------------------


def test_a_forced_run_begins_beside_and_goes_on_there(
    dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(options, "CheckpointEngine", lambda model, config, revision: FakeEngine())
    command = ["--input", str(dataset), "--output", str(output), "--executor", "local", "--no-report"]
    command += ["--max-failed-rows", "4"]  # as many as are planted
    assert score.main(command) == 0
    before = snapshot(output)
    other = [*command, "--method", "prior"]
    assert score.main(other) == score.WRONG
    said = capsys.readouterr().err
    assert '"cal" → "prior"' in said
    assert "--force-new-run" in said
    assert score.main([*other, "--force-new-run"]) == 0
    assert f"{output}-2" in capsys.readouterr().out
    beside = Path(f"{output}-2")
    first = snapshot(beside)
    assert score.main([*other, "--force-new-run"]) == 0
    assert snapshot(beside) == first, "given again, it goes on, which here is to do nothing"
    assert score.main([*command, "--method", "vig-row", "--force-new-run"]) == 0
    assert Path(f"{output}-3", "_SUCCESS").exists()
    assert score.main([*command, "--force-new-run"]) == 0
    assert snapshot(output) == before
    assert not Path(f"{output}-4").exists()
    assert set(published(beside)) == set(SHARDS)


def test_files_of_nobody_are_left_alone_too(dataset: Path, output: Path) -> None:
    output.mkdir()
    (output / "a.parquet").write_bytes(b"mine")
    with pytest.raises(OtherRunError, match="--force-new-run"):
        prepare(make_job(dataset, output))


def test_a_local_store_tells_its_own_create_from_anothers(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert isinstance(store, LocalStore)
    assert store.create("key", b"mine")
    assert store.create("key", b"mine")
    assert not store.create("key", b"another's")
