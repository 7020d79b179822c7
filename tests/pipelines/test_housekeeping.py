"""What is removed, and above all what is not: beside a run at work, after one, and when somebody comes late."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.commit import UnitMarker, publish_shard
from pipelines.housekeeping import cli
from pipelines.housekeeping.compaction import compact, superseded
from pipelines.housekeeping.leftovers import MIN_AGE, delete_leftovers, find_leftovers, leftover_age
from pipelines.housekeeping.objects import list_items, parse_age
from pipelines.inspection.integrity import check
from pipelines.inspection.outputs import look
from pipelines.job import prepare
from pipelines.storage import ObjectStore, Store, open_store
from scorer.errors import ConfigError, RunError
from tests.pipelines.helpers import ROWS, RecordingWatch, make_job, published, run, snapshot
from tests.pipelines.outputs import age, stop_after

DAY = timedelta(days=1)
HEX = "0123456789abcdef" * 2


def keys(output: Path) -> set[str]:
    return {name for name in snapshot(output) if not name.startswith("_published")}


def unit_files(output: Path) -> list[Path]:
    return sorted((output / "_units").iterdir())


def lost_attempt(output: Path) -> Path:
    """A second attempt at the first committed unit, whose marker names the first one."""
    marker = UnitMarker.from_bytes(sorted((output / "_commits").iterdir())[0].read_bytes())
    path = output / "_units" / f"{marker.unit}.{HEX}.parquet"
    path.write_bytes(b"lost")
    return path


def uncommitted_attempt(output: Path) -> Path:
    """An attempt at a unit that nobody has committed."""
    commit = sorted((output / "_commits").iterdir())[0]
    path = output / "_units" / f"{commit.stem.rsplit('-', 2)[0]}-1000-1005.{HEX}.parquet"
    path.write_bytes(b"in the air")
    return path


def temporary(output: Path) -> Path:
    path = output / f".a.parquet.{HEX}"
    path.write_bytes(b"half of it")
    return path


def found(store: Store, limit: timedelta = DAY) -> dict[str, str]:
    return {leftover.item.key: leftover.kind for leftover in find_leftovers(store, limit).found}


@pytest.mark.parametrize(
    ("text", "expected"), [("7d", timedelta(days=7)), ("12h", timedelta(hours=12)), ("90m", timedelta(minutes=90))]
)
def test_ages(text: str, expected: timedelta) -> None:
    assert parse_age(text) == leftover_age(text) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5h", "7 d", "7w", "1dd", "9" * 12 + "d"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="age"):
        parse_age(text)


@pytest.mark.parametrize("text", ["0d", "59m", "0h"])
def test_an_age_that_a_run_at_work_may_have_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="give 1h or more"):
        leftover_age(text)
    assert leftover_age("60m") == MIN_AGE


def test_left_overs_are_found_by_kind(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    assert found(open_store(str(output))) == {}
    made = {lost_attempt(output): "lost attempt", uncommitted_attempt(output): "uncommitted attempt"}
    made[temporary(output)] = "temporary file"
    assert found(open_store(str(output))) == {}, "too young"
    age(output, 25)
    expected = {str(path.relative_to(output)): kind for path, kind in made.items()}
    assert found(open_store(str(output))) == expected
    assert found(open_store(str(output)), 2 * DAY) == {}


def test_nothing_else_is_ever_a_left_over(dataset: Path, output: Path) -> None:
    stop_after(6, dataset, output)
    for name in (
        "mine.parquet",
        "_units/mine.parquet",
        f"_units/mine.{HEX}.txt",
        ".hidden",
        "_units/.hidden",
        "report.html",
    ):
        (output / name).write_text("mine")
    age(output, 1000)
    assert found(open_store(str(output))) == {}


def test_beside_a_run_at_work_only_lost_attempts_go(dataset: Path, output: Path) -> None:
    stop_after(2, dataset, output)
    lost, waiting = lost_attempt(output), uncommitted_attempt(output)
    age(output, 100)
    age(sorted((output / "_commits").iterdir())[1], 0.5)  # the run has just committed another unit
    leftovers = find_leftovers(open_store(str(output)), DAY)
    assert [leftover.item.key for leftover in leftovers.found] == [f"_units/{lost.name}"]
    assert leftovers.kept == 1
    assert waiting.exists()


def test_an_attempt_that_is_committed_meanwhile_stays(dataset: Path, output: Path) -> None:
    stop_after(1, dataset, output)
    waiting = uncommitted_attempt(output)
    unit = waiting.name.split(".")[0]
    age(output, 100)
    store = open_store(str(output))
    leftovers = find_leftovers(store, DAY).found
    assert len(leftovers) == 1
    marker = UnitMarker.from_bytes(sorted((output / "_commits").iterdir())[0].read_bytes())
    store.create(f"_commits/{unit}.json", UnitMarker(unit, f"_units/{waiting.name}", "", marker.tally).to_bytes())
    assert list(delete_leftovers(store, leftovers)) == []
    assert waiting.exists()


@pytest.mark.parametrize("make", [lost_attempt, uncommitted_attempt, temporary])
def test_what_is_written_again_meanwhile_stays(dataset: Path, output: Path, make: object) -> None:
    stop_after(1, dataset, output)
    path: Path = make(output)  # type: ignore[operator]
    age(output, 100)
    store = open_store(str(output))
    leftovers = find_leftovers(store, DAY).found
    assert len(leftovers) == 1
    age(path, 99)
    assert list(delete_leftovers(store, leftovers)) == []
    path.unlink()
    assert list(delete_leftovers(store, leftovers)) == [], "gone is no error"


def test_a_marker_that_cannot_be_read_protects_its_units_files(dataset: Path, output: Path) -> None:
    stop_after(1, dataset, output)
    lost_attempt(output)
    next((output / "_commits").iterdir()).write_text("{")
    age(output, 100)
    assert found(open_store(str(output))) == {}


def test_a_run_goes_on_after_its_left_overs_went(dataset: Path, output: Path, tmp_path: Path) -> None:
    stop_after(3, dataset, output)
    made = [lost_attempt(output), uncommitted_attempt(output), temporary(output)]
    age(output, 100)
    store = open_store(str(output))
    gone = list(delete_leftovers(store, find_leftovers(store, DAY).found))
    assert sorted(leftover.item.key for leftover in gone) == sorted(str(path.relative_to(output)) for path in made)
    watch = RecordingWatch()
    run(make_job(dataset, output), watch)
    assert watch.rows == ROWS - 15
    run(make_job(dataset, tmp_path / "fresh"))
    assert published(output) == published(tmp_path / "fresh")


def test_a_bucket_tells_ages_too(dataset: Path, tmp_path: Path) -> None:
    store = ObjectStore(f"memory://gc-{tmp_path.name}/out")
    run(make_job(dataset, store.root))
    unit = next(key for key in store.sizes() if key.startswith("_units/")).split(".")[0]
    store.put(f"{unit}.{HEX}.parquet", b"lost")
    assert set(list_items(store.root)) == set(store.sizes())
    later = datetime.now(UTC) + 2 * DAY
    leftovers = find_leftovers(store, DAY, later)
    assert [leftover.kind for leftover in leftovers.found] == ["lost attempt"]
    assert [leftover.item.key for leftover in delete_leftovers(store, leftovers.found)] == [f"{unit}.{HEX}.parquet"]
    assert f"{unit}.{HEX}.parquet" not in store.sizes()
    assert find_leftovers(store, DAY, later).found == ()


# --- compaction --------------------------------------------------------------------------------------------------


def test_a_compacted_output_is_what_readers_see_and_little_else(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    (output / "_attempts").mkdir()
    unit = sorted((output / "_commits").iterdir())[0].stem
    (output / "_attempts" / f"{unit}.score.1").write_text("x")
    (output / "_units" / "mine.txt").write_text("mine")
    before = published(output)
    gone = compact(look(open_store(str(output))))
    assert len(gone.keys) == 8 + 1 + 8
    assert keys(output) == {
        "README.md", "_SUCCESS", "_run.json", "_compacted.json", "_units/mine.txt",
        "a.parquet", "empty.parquet", "sub/b.parquet",
    }  # fmt: skip
    assert published(output) == before
    output_now = look(open_store(str(output)))
    assert (output_now.state, output_now.rows_committed) == ("finished", ROWS)
    assert list(check(output_now, lambda _: None)) == []
    assert compact(output_now).keys == ()


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
    assert len(compact(look(open_store(str(output)))).keys) == 10
    assert len(json.loads((output / "_compacted.json").read_text())["shards"]) == 4
    run(make_job(dataset, output), watch)
    assert watch.rows == 25


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
        late.work.score(unit, late.work.encode(unit, other.encoder()), other.scorer())
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


# --- the command line --------------------------------------------------------------------------------------------


def test_without_delete_nothing_is_changed(dataset: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(make_job(dataset, output))
    lost_attempt(output)
    age(output, 100)
    before = snapshot(output)
    assert cli.main([str(output)]) == 0
    assert "superseded: 17 objects" in capsys.readouterr().out
    assert cli.main([str(output), "--gc", "1d"]) == 0
    printed = capsys.readouterr().out
    assert "lost attempt" in printed and "1 left-overs older than 1d, 4 B; --delete removes them" in printed
    assert snapshot(output) == before
    assert cli.main([str(output), "--gc", "1d", "--delete"]) == 0
    assert "deleted 1 left-overs, 4 B" in capsys.readouterr().out
    assert cli.main([str(output), "--delete"]) == 0
    assert "deleted 16 objects" in capsys.readouterr().out
    assert cli.main([str(output)]) == 0
    assert "nothing to compact" in capsys.readouterr().out


def test_what_is_kept_beside_a_run_is_said(dataset: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop_after(1, dataset, output)
    age(uncommitted_attempt(output), 100)
    assert cli.main([str(output), "--gc", "1d", "--delete"]) == 0
    assert "kept 1 attempts at units that are not committed" in capsys.readouterr().out


def test_refusals_have_their_status(dataset: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([str(output)]) == 2
    assert "give the --output of a scoring run" in capsys.readouterr().err
    assert cli.main([str(output), "--gc", "7d"]) == 2
    stop_after(1, dataset, output)
    assert cli.main([str(output), "--gc", "7x"]) == 2
    assert "is not an age" in capsys.readouterr().err
    assert cli.main([str(output), "--delete"]) == 1
    assert "is not finished" in capsys.readouterr().err
    assert cli.main(["nosuch://x"]) == 2
