"""``_progress.json`` is there to be watched, and in nobody's way."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import compact, inspect
from pipelines.executors.local import LocalExecutor
from pipelines.output.store import Store
from pipelines.progress import watch as watching
from pipelines.progress.file import KEY, ProgressFile
from pipelines.progress.watch import ProgressWatch
from pipelines.run.job import Job, prepare
from scorer.training import read_weights
from tests.pipelines.helpers import ROWS, make_job, published, run, snapshot


def execute(job: Job) -> dict[str, Any]:
    executor = LocalExecutor()
    return prepare(job).execute(executor, ProgressWatch([ProgressFile(job.store)], lambda: executor.workers))


def test_the_last_one_tells_of_the_whole_run(dataset: Path, output: Path) -> None:
    execute(make_job(dataset, output))
    found = json.loads((output / KEY).read_text())
    assert (found["state"], found["rows"], found["rows_done"], found["rows_failed_here"]) == ("ended", ROWS, ROWS, 4)
    assert found["busy"].keys() == {"read", "encode", "score", "write"}
    assert all(share > 0 for share in found["busy"].values())
    assert found["updated_at"].endswith("+00:00")


def test_it_is_written_every_period_and_not_for_every_unit(
    dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(dataset, output, rows_per_unit=1)
    written: list[dict[str, Any]] = []
    put = type(job.store).put

    def spy(store: Store, key: str, data: bytes) -> None:
        if key == KEY:
            written.append(json.loads(data))
        put(store, key, data)

    monkeypatch.setattr(type(job.store), "put", spy)
    execute(job)
    assert [one["rows_done"] for one in written] == [0, ROWS]
    monkeypatch.setattr(watching, "PERIOD", 0.02)
    shown = ProgressWatch([ProgressFile(job.store)], lambda: None)
    shown.begin(10, 0)
    while len(written) < 6:
        time.sleep(0.01)
    shown.end()
    assert {one["state"] for one in written[3:-1]} == {"running"}


def test_a_finished_run_given_again_writes_nothing(dataset: Path, output: Path) -> None:
    execute(make_job(dataset, output))
    before = snapshot(output)
    execute(make_job(dataset, output))
    assert snapshot(output) == before


def test_readers_do_not_take_it_for_more_than_it_is(
    dataset: Path, output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(make_job(dataset, tmp_path / "plain"))
    execute(make_job(dataset, output))
    assert published(output) == published(tmp_path / "plain")
    assert inspect.main([str(output)]) == 0
    assert compact.main([str(output), "--delete"]) == 0
    assert len(list(read_weights(str(output)))) == ROWS
    execute(make_job(dataset, output))
    assert "error" not in capsys.readouterr().err


def test_a_store_that_refuses_it_costs_the_run_nothing(
    dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = make_job(dataset, output)
    put = type(job.store).put

    def refuse(store: Store, key: str, data: bytes) -> None:
        if key == KEY:
            raise OSError(28, "No space left on device")
        put(store, key, data)

    monkeypatch.setattr(type(job.store), "put", refuse)
    with caplog.at_level(logging.WARNING):
        assert execute(job)["rows"] == ROWS
    assert "ProgressFile could not show progress: OSError(28, 'No space left on device')" in caplog.text
