"""Compaction: what goes, what stays, and that a run goes on as if nothing had gone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pipelines.output import attempts
from pipelines.output.check import check
from pipelines.output.commit import publish_shard
from pipelines.output.compaction import compact, published_before, superseded
from pipelines.output.contents import look
from pipelines.output.store import open_store
from pipelines.run.job import prepare
from scorer.errors import RunError
from tests.pipelines.helpers import ROWS, RecordingWatch, make_job, published, run, snapshot
from tests.pipelines.outputs import flip, stop_after


def keys(output: Path) -> set[str]:
    return {name for name in snapshot(output) if not name.startswith("_published")}


def test_a_compacted_output_is_what_readers_see_and_little_else(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    (output / "_units" / "mine.txt").write_text("mine")
    before = published(output)
    gone = compact(look(open_store(str(output))))
    assert len(gone.keys) == 3 * 8, "markers, attempts' records and files of 8 units"
    assert keys(output) == {
        "README.md", "_SUCCESS", "_run.json", "_compacted.json", "_units/mine.txt",
        "a.parquet", "empty.parquet", "sub/b.parquet",
    }  # fmt: skip
    assert published(output) == before
    output_now = look(open_store(str(output)))
    assert (output_now.state, output_now.rows_committed) == ("finished", ROWS)
    assert list(check(output_now, lambda _: None)) == []
    assert compact(output_now).keys == ()


def test_what_interrupted_sessions_left_goes_too(dataset: Path, output: Path) -> None:
    stop_after(2, dataset, output)
    attempts.end_session(open_store(str(output)), "interrupted")
    run(make_job(dataset, output))
    assert list((output / "_attempts").glob("*.ended"))
    compact(look(open_store(str(output))))
    assert not list((output / "_attempts").glob("*"))


@pytest.mark.parametrize("remote", [False, True])
def test_a_rerun_after_compaction_scores_nothing_and_writes_nothing(
    dataset: Path, tmp_path: Path, remote: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"memory://compacted-{tmp_path.name}/out" if remote else str(tmp_path / "out")
    first = run(make_job(dataset, place))
    store = open_store(place)
    compact(look(store))
    sizes = store.sizes()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a finished run must not write")

    for name in ("put", "create", "staged"):
        monkeypatch.setattr(type(store), name, refuse)
    watch = RecordingWatch()
    assert run(make_job(dataset, place), watch) == first
    assert (watch.begun, watch.rows) == ((ROWS, ROWS), 0)
    assert store.sizes() == sizes


def test_a_shard_that_is_lost_after_compaction_is_scored_anew(dataset: Path, output: Path) -> None:
    first = run(make_job(dataset, output))
    before = published(output)
    compact(look(open_store(str(output))))
    (output / "sub" / "b.parquet").unlink()
    watch = RecordingWatch()
    again = run(make_job(dataset, output), watch)
    assert watch.rows == 13
    assert published(output) == before
    assert again["shards"] == first["shards"]


def test_new_shards_after_compaction_are_scored_and_compacted(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    compact(look(open_store(str(output))))
    (dataset / "c.parquet").write_bytes((dataset / "a.parquet").read_bytes())
    watch = RecordingWatch()
    run(make_job(dataset, output), watch)
    assert watch.rows == 25
    assert len(compact(look(open_store(str(output)))).keys) == 3 * 5
    assert len(json.loads((output / "_compacted.json").read_text())["shards"]) == 4
    run(make_job(dataset, output), watch)
    assert watch.rows == 25


def test_a_finished_run_that_goes_on_with_new_shards_is_not_compacted(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    (dataset / "c.parquet").write_bytes((dataset / "a.parquet").read_bytes())
    late = prepare(make_job(dataset, output))
    late.work.run(late.pending[0], late.work.engine.encoder(), late.work.engine.scorer())
    with pytest.raises(RunError, match="is not finished"):
        superseded(look(open_store(str(output))))


def test_what_was_compacted_once_stays_on_the_record(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    (output / "_compacted.json").write_text('{"shards": ["of-before"]}')
    compact(look(open_store(str(output))))
    stems = json.loads((output / "_compacted.json").read_text())["shards"]
    assert "of-before" in stems and len(stems) == 4


def test_a_file_that_was_damaged_since_does_not_count_as_published(dataset: Path, output: Path) -> None:
    work = prepare(make_job(dataset, output))
    run(make_job(dataset, output))
    compact(look(open_store(str(output))))
    planned = work.plans[0]
    assert published_before(work.work.store, planned) is not None
    flip(output / planned.shard.name)
    assert published_before(work.work.store, planned) is None


def test_a_changed_shard_is_refused_after_compaction_too(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    compact(look(open_store(str(output))))
    (dataset / "a.parquet").write_bytes((dataset / "sub" / "b.parquet").read_bytes())
    with pytest.raises(RunError, match="input shards changed"):
        run(make_job(dataset, output))


@pytest.mark.parametrize("rows_per_unit", [5, 100])
def test_who_comes_late_leaves_the_published_file_alone(dataset: Path, output: Path, rows_per_unit: int) -> None:
    """A process that slept at a unit while others finished the run and compacted it; its scores differ a little."""
    late = prepare(make_job(dataset, output, rows_per_unit=rows_per_unit))
    run(make_job(dataset, output, rows_per_unit=rows_per_unit))
    before, marker = published(output), snapshot(output / "_published")
    compact(look(open_store(str(output))))
    planned = late.plans[0]
    other = type(late.work.engine)(seed=1)  # type: ignore[call-arg]
    for unit in planned.units[:1]:
        scored = late.work.score(unit, late.work.encode(unit, other.encoder()), other.scorer())
        late.work.commit(unit, scored)
    assert late.work.publish(planned).sha256 == hashlib.sha256(before[planned.shard.name]).hexdigest()
    assert published(output) == before
    assert snapshot(output / "_published") == marker
    # Negative control: published from what it has, a shard of one unit would have been replaced.
    if rows_per_unit == 100:
        publish_shard(late.work.store, planned, late.work._empty(planned.shard))
        assert published(output) != before


def test_an_unfinished_run_is_not_compacted(dataset: Path, output: Path) -> None:
    stop_after(6, dataset, output)
    before = snapshot(output)
    with pytest.raises(RunError, match="is not finished"):
        superseded(look(open_store(str(output))))
    assert snapshot(output) == before


@pytest.mark.parametrize("damage", ["torn", "flipped", "gone"])
def test_a_damaged_output_is_not_compacted(dataset: Path, output: Path, damage: str) -> None:
    run(make_job(dataset, output))
    path = output / "a.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:-1] if damage == "torn" else data[:40] + bytes([data[40] ^ 1]) + data[41:])
    if damage == "gone":
        path.unlink()
    before = snapshot(output)
    with pytest.raises(RunError, match=r"problems, the first is a\.parquet.*Nothing is deleted"):
        compact(look(open_store(str(output))))
    assert snapshot(output) == before
