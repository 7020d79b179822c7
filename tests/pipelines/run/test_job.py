from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.executors.local import LocalExecutor
from pipelines.output.commit import UnitMarker
from pipelines.output.plan import Unit
from pipelines.output.store.local import LocalStore
from pipelines.output.store.object_store import ObjectStore
from pipelines.run.job import prepare
from pipelines.run.score_unit import UnitWork
from pipelines.sources.columns import Columns
from scorer.errors import ConfigError, RunError
from scorer.table import read_metadata
from scorer.weights import Method
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import (
    ROWS,
    SHARDS,
    RecordingWatch,
    caption_table,
    make_job,
    published,
    run,
    snapshot,
)


class StopError(Exception):
    """Stands for whatever ends a run early."""


class StoppingExecutor(LocalExecutor):
    """Stops after some units."""

    def __init__(self, units: int) -> None:
        self.units = units

    def score(self, work: UnitWork, units: Sequence[Unit]) -> Iterator[UnitMarker]:
        yield from super().score(work, units[: self.units])
        raise StopError


def stop_after(units: int, dataset: Path, output: Path, **options: Any) -> None:
    with pytest.raises(StopError):
        prepare(make_job(dataset, output, **options)).execute(StoppingExecutor(units), RecordingWatch())


def test_a_run_from_start_to_end(dataset: Path, output: Path) -> None:
    watch = RecordingWatch()
    summary = run(make_job(dataset, output), watch)
    assert watch.begun == (ROWS, 0)
    assert watch.rows == ROWS
    assert watch.ended
    assert summary == json.loads((output / "_SUCCESS").read_text())
    assert (summary["rows"], summary["ok"], summary["failed"]) == (ROWS, ROWS - 4, 4)
    assert {code: failure["count"] for code, failure in summary["failures"].items()} == {
        "image_unreadable": 2,
        "text_missing": 2,
    }
    assert summary["failures"]["image_unreadable"]["examples"][1] == {
        "shard": "sub/b.parquet",
        "row_index": 3,
        "sample_id": "sub/b.parquet3",
        "message": "the image does not decode",
    }
    assert [(shard["name"], shard["rows"]) for shard in summary["shards"]] == sorted(SHARDS.items())
    assert summary["tokens"] == (ROWS - 4) * 4
    assert summary["rows_per_second"] == pytest.approx(ROWS / summary["seconds_scoring"])
    assert (summary["model"], summary["contrast"], summary["dtype"]) == ("fake", "blank", "float32")
    assert summary["paths"] == {"fake": ROWS - 4}
    assert summary["padding_waste"] == 0
    for name, rows in SHARDS.items():
        table = pq.read_table(output / name)
        assert table.num_rows == rows
        assert table["row_index"].to_pylist() == list(range(rows))
        assert read_metadata(table.schema)["fingerprint"] == FakeEngine().fingerprint()


def test_a_rerun_after_success_scores_nothing_and_writes_nothing(
    dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(make_job(dataset, output))
    before = snapshot(output)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a finished run must not write")

    for name in ("put", "create", "staged"):
        monkeypatch.setattr(LocalStore, name, refuse)
    for name in ("encoder", "scorer"):
        monkeypatch.setattr(FakeEngine, name, refuse)
    watch = RecordingWatch()
    assert run(make_job(dataset, output), watch) == first
    assert watch.begun == (ROWS, ROWS)
    assert watch.rows == 0
    assert snapshot(output) == before


def test_a_rerun_after_success_reads_no_marker(dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run of 100,000 shards, that would be 100,000 requests."""
    run(make_job(dataset, output))
    read: list[str] = []
    get = LocalStore.get
    monkeypatch.setattr(LocalStore, "get", lambda self, key: (read.append(key), get(self, key))[1])
    run(make_job(dataset, output))
    assert set(read) == {"_run.json", "_SUCCESS"}
    assert len(read) <= 3


def test_an_object_store_gets_no_write_from_a_rerun_either(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = f"memory://rerun-{tmp_path.name}/out"
    first = run(make_job(dataset, output))
    sizes = ObjectStore(output).sizes()
    writes: list[str] = []
    for name in ("put", "create"):
        monkeypatch.setattr(ObjectStore, name, lambda self, key, data: writes.append(key))
    assert run(make_job(dataset, output)) == first
    assert not writes
    assert ObjectStore(output).sizes() == sizes


def test_an_object_store_holds_the_same_bytes_as_a_directory(dataset: Path, output: Path, tmp_path: Path) -> None:
    remote = f"memory://same-{tmp_path.name}/out"
    run(make_job(dataset, output))
    run(make_job(dataset, remote))
    store = ObjectStore(remote)
    assert {name: store.get(name) for name in SHARDS} == published(output)


@pytest.mark.parametrize("units", [0, 1, 4, 5, 6, 7])
def test_a_stopped_run_goes_on_where_it_was(dataset: Path, output: Path, tmp_path: Path, units: int) -> None:
    stop_after(units, dataset, output)
    assert not (output / "_SUCCESS").exists()
    assert (output / "a.parquet").exists() == (units >= 5), "a shard is published as soon as its units are committed"
    watch = RecordingWatch()
    summary = run(make_job(dataset, output), watch)
    done = sum((5, 5, 5, 5, 5, 5, 5, 3)[:units])
    assert watch.begun == (ROWS, done)
    assert watch.rows == ROWS - done, "what is committed is not scored again"
    fresh = run(make_job(dataset, tmp_path / "fresh"))
    assert published(output) == published(tmp_path / "fresh")
    # The summary covers the whole run, not the last process.
    timed = ("started_at", "finished_at", "seconds_scoring", "rows_per_second", "tokens_per_second")
    assert {k: v for k, v in summary.items() if k not in timed} == {k: v for k, v in fresh.items() if k not in timed}
    assert summary["seconds_scoring"] > 0


def test_an_input_without_rows_is_published(tmp_path: Path, output: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(caption_table(0), tmp_path / "data" / "x.parquet")
    summary = run(make_job(tmp_path / "data", output))
    assert summary["rows"] == 0
    assert summary["rows_per_second"] is None
    assert pq.read_table(output / "x.parquet").num_rows == 0


@pytest.mark.parametrize("name", ["a.parquet", "empty.parquet", "_SUCCESS", "_published"])
def test_what_was_deleted_or_torn_of_a_finished_output_is_written_again(dataset: Path, output: Path, name: str) -> None:
    run(make_job(dataset, output))
    before = published(output)
    path = output / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    watch = RecordingWatch()
    run(make_job(dataset, output), watch)
    assert watch.rows == 0
    assert published(output) == before
    (output / "a.parquet").write_bytes(before["a.parquet"][:-1])
    run(make_job(dataset, output))
    assert published(output) == before


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"engine": FakeEngine(seed=1)}, [r"fingerprint.seed  0 → 1"]),
        ({"method": Method("cal", {"high": 4.0})}, ["method.params.high  5.0 → 4.0"]),
        ({"layout": "merged"}, ['layout  "sidecar" → "merged"']),
        ({"rows_per_unit": 6}, ["rows_per_unit  5 → 6"]),
        ({"columns": Columns(text="id")}, ['source.columns.id    "id" → null']),
        ({"engine": FakeEngine(seed=1), "rows_per_unit": 6}, ["fingerprint.seed  0 → 1", "rows_per_unit     5 → 6"]),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_run_is_refused_by_what_differs(
    dataset: Path, output: Path, options: dict[str, Any], lines: list[str], finished: bool
) -> None:
    if finished:
        run(make_job(dataset, output))
    else:
        stop_after(1, dataset, output)
    before = snapshot(output)
    if options.get("columns") is not None:
        options = {**options, "columns": Columns(text="caption", id="caption")}
        lines = ['source.columns.id  "id" → "caption"']
    with pytest.raises(RunError, match="begun by a different run") as caught:
        run(make_job(dataset, output, **options))
    for line in lines:
        assert line in str(caught.value)
    assert "choose another --output" in str(caught.value)
    assert snapshot(output) == before


def test_the_unit_size_of_an_output_is_kept_where_none_is_asked_for(dataset: Path, output: Path) -> None:
    stop_after(1, dataset, output)
    summary = run(make_job(dataset, output, rows_per_unit=None))
    assert summary["rows"] == ROWS
    assert len(list((output / "_commits").iterdir())) == 8


@dataclasses.dataclass(frozen=True, slots=True)
class DigestedEngine(FakeEngine):
    """An engine whose fingerprint has a weights digest, as a real model's has."""

    model: str = "/here/model"
    digest: str = "d"

    def fingerprint(self) -> dict[str, Any]:
        return {"model": self.model, "revision": None, "weights_sha256": self.digest}


def test_the_same_weights_elsewhere_are_the_same_run(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output, DigestedEngine()))
    run(make_job(dataset, output, DigestedEngine(model="/there/model")))
    with pytest.raises(RunError, match="weights_sha256"):
        run(make_job(dataset, output, DigestedEngine(digest="e")))


@dataclasses.dataclass(frozen=True, slots=True)
class TupleEngine(FakeEngine):
    """An engine whose fingerprint holds what JSON has no word for."""

    def fingerprint(self) -> dict[str, Any]:
        return {"model": "fake", "mean": (0.5, 0.5), "by_layer": {1: "a"}}


def test_a_fingerprint_is_compared_as_it_is_stored(dataset: Path, output: Path) -> None:
    first = run(make_job(dataset, output, TupleEngine()))
    assert run(make_job(dataset, output, TupleEngine())) == first


@pytest.mark.parametrize("published_first", [True, False])
def test_a_changed_shard_is_refused(dataset: Path, output: Path, published_first: bool) -> None:
    stop_after(6 if published_first else 1, dataset, output)
    pq.write_table(caption_table(25, "other"), dataset / "a.parquet")
    with pytest.raises(RunError, match=r"1 input shards changed .* the first is 'a\.parquet'"):
        run(make_job(dataset, output))


def test_new_shards_are_scored_and_the_others_are_not_touched(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    before = snapshot(output)
    pq.write_table(caption_table(7, "new"), dataset / "c.parquet")
    watch = RecordingWatch()
    summary = run(make_job(dataset, output), watch)
    assert watch.rows == 7
    assert summary["rows"] == ROWS + 7
    after = snapshot(output)
    assert {name for name in before if after[name] != before[name]} == {"_SUCCESS", "README.md"}


def test_files_that_are_not_a_runs_are_not_overwritten(dataset: Path, output: Path) -> None:
    output.mkdir()
    (output / "a.parquet").write_bytes(b"mine")
    with pytest.raises(RunError, match=r"already holds 'a\.parquet' but no run"):
        run(make_job(dataset, output))
    assert snapshot(output).keys() == {"a.parquet"}


def test_merged_refuses_columns_of_our_names(dataset: Path, output: Path) -> None:
    table = caption_table(3).append_column("status", pa.array(["x"] * 3))
    pq.write_table(table, dataset / "a.parquet")
    run(make_job(dataset, output / "sidecar"))
    with pytest.raises(ConfigError, match=r"shard a\.parquet already has columns named status; rename"):
        run(make_job(dataset, output / "merged", layout="merged"))
    assert not (output / "merged").exists()


def test_a_run_record_of_another_format_is_refused(dataset: Path, output: Path) -> None:
    output.mkdir()
    for content in ("{}", "nonsense"):
        (output / "_run.json").write_text(content)
        with pytest.raises(RunError, match=r"_run\.json, .* cannot be read"):
            run(make_job(dataset, output))


def test_units_that_an_executor_forgets_are_found(dataset: Path, output: Path) -> None:
    class Forgetful(LocalExecutor):
        def score(self, work: UnitWork, units: Sequence[Unit]) -> Iterator[UnitMarker]:
            return super().score(work, units[:-1])

    with pytest.raises(RunError, match=r"1 units were never committed, the first in shard sub/b\.parquet"):
        prepare(make_job(dataset, output)).execute(Forgetful(), RecordingWatch())
