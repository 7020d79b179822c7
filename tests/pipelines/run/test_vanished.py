"""A shard that was scored and is no longer in the input: refused, or left out because that was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.run.job import prepare
from scorer.errors import OtherRunError
from tests.pipelines.helpers import make_job, run, snapshot


def files(output: Path) -> Any:
    return json.loads((output / "_SUCCESS").read_bytes())["files"]


def test_a_shard_that_vanished_after_a_finished_run_is_refused(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    assert files(output) == {"seen": 3, "read": 3, "passed_over": {}}
    (dataset / "a.parquet").unlink()
    before = snapshot(output)
    with pytest.raises(OtherRunError, match=r"1 input shards vanished since .*'a\.parquet'; put them back, leave them"):
        prepare(make_job(dataset, output))
    assert snapshot(output) == before


def test_it_is_left_out_when_asked_and_not_asked_about_again(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    (dataset / "a.parquet").unlink()
    summary = run(make_job(dataset, output, on_changed="rescore"))
    assert [shard["name"] for shard in summary["shards"]] == ["empty.parquet", "sub/b.parquet"]
    assert files(output)["read"] == 2
    before = snapshot(output)
    assert run(make_job(dataset, output)) == summary
    assert snapshot(output) == before


def test_it_is_refused_before_the_run_is_finished_too(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    (output / "_SUCCESS").unlink()
    (dataset / "a.parquet").unlink()
    with pytest.raises(OtherRunError, match=r"1 input shards vanished since .* the first is 'a\.parquet'"):
        prepare(make_job(dataset, output))
    for marker in (output / "_published").iterdir():
        marker.unlink()
    with pytest.raises(OtherRunError, match=r"the first is 'one that was not complete yet'"):
        prepare(make_job(dataset, output))


def test_files_beside_the_shards_change_nothing_in_a_finished_run(dataset: Path, output: Path) -> None:
    (dataset / "notes.txt").write_text("x")
    run(make_job(dataset, output))
    assert files(output)["passed_over"] == {".txt": {"count": 1, "examples": ["notes.txt"]}}
    (dataset / "more.txt").write_text("x")
    before = snapshot(output)
    run(make_job(dataset, output))
    assert snapshot(output) == before
