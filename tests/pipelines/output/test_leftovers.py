"""What is removed, and above all what is not: beside a run at work, after one, and when somebody comes late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.cli import compact
from pipelines.output.commit import UnitMarker
from pipelines.output.leftovers import MIN_AGE, delete_leftovers, find_leftovers, leftover_age, parse_age
from pipelines.output.objects import list_items
from pipelines.output.store import ObjectStore, Store, open_store
from scorer.errors import ConfigError
from tests.pipelines.helpers import ROWS, RecordingWatch, make_job, published, run, snapshot
from tests.pipelines.outputs import age, stop_after

DAY = timedelta(days=1)
HEX = "0123456789abcdef" * 2


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
    unit, digest, _ = waiting.name.split(".")
    age(output, 100)
    store = open_store(str(output))
    leftovers = find_leftovers(store, DAY).found
    assert len(leftovers) == 1
    marker = UnitMarker.from_bytes(sorted((output / "_commits").iterdir())[0].read_bytes())
    store.create(f"_commits/{unit}.json", UnitMarker(unit, f"_units/{waiting.name}", digest, marker.tally).to_bytes())
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


def test_a_file_whose_unit_lost_its_marker_meanwhile_stays(dataset: Path, output: Path) -> None:
    """Somebody has the unit scored anew; by the name of its content, that attempt may come to be this very file."""
    stop_after(1, dataset, output)
    lost = lost_attempt(output)
    age(output, 100)
    store = open_store(str(output))
    leftovers = find_leftovers(store, DAY).found
    next((output / "_commits").iterdir()).unlink()
    assert list(delete_leftovers(store, leftovers)) == []
    assert lost.exists()


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


# --- the command line --------------------------------------------------------------------------------------------


def test_without_delete_nothing_is_changed(dataset: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(make_job(dataset, output))
    lost_attempt(output)
    age(output, 100)
    before = snapshot(output)
    assert compact.main([str(output)]) == 0
    assert "superseded: 25 objects" in capsys.readouterr().out
    assert compact.main([str(output), "--gc", "1d"]) == 0
    printed = capsys.readouterr().out
    assert "lost attempt" in printed and "1 leftovers older than 1d, 4 B; --delete removes them" in printed
    assert snapshot(output) == before
    assert compact.main([str(output), "--gc", "1d", "--delete"]) == 0
    assert "deleted 1 leftovers, 4 B" in capsys.readouterr().out
    assert compact.main([str(output), "--delete"]) == 0
    assert "deleted 24 objects" in capsys.readouterr().out
    assert compact.main([str(output)]) == 0
    assert "nothing to compact" in capsys.readouterr().out


def test_what_is_kept_beside_a_run_is_said(dataset: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop_after(1, dataset, output)
    age(uncommitted_attempt(output), 100)
    assert compact.main([str(output), "--gc", "1d", "--delete"]) == 0
    assert "kept 1 attempts at uncommitted units" in capsys.readouterr().out


def test_refusals_have_their_status(dataset: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compact.main([str(output)]) == 2
    assert "give the --output of a scoring run" in capsys.readouterr().err
    assert compact.main([str(output), "--gc", "7d"]) == 2
    stop_after(1, dataset, output)
    assert compact.main([str(output), "--gc", "7x"]) == 2
    assert "is not an age" in capsys.readouterr().err
    assert compact.main([str(output), "--delete"]) == 1
    assert "is not finished" in capsys.readouterr().err
    assert compact.main(["nosuch://x"]) == 2
