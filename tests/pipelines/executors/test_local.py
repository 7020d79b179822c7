"""Rows that hang, eat memory or kill, in one process: they fail, their neighbours are scored as ever."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.executors import local
from pipelines.executors.local import LocalExecutor
from pipelines.output.commit import UnitMarker
from pipelines.output.plan import Unit
from pipelines.run.job import prepare
from pipelines.run.score_unit import UnitWork
from scorer.errors import RunError
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import RecordingWatch, caption_table, make_job, run
from tests.pipelines.hostile_engine import HostileEngine

TIMEOUT = 0.7
HARM = {8: "hang-encode", 12: "gulp-encode", 14: "gulp-score", 17: "hang-score"}
STATUS = {8: "row_timeout", 12: "scoring_failed", 14: "scoring_failed", 17: "row_timeout"}


def write(root: Path, harm: dict[int, str], rows: int = 25) -> Path:
    """A shard in which some rows' captions do harm, beside the same shard in which they do none."""
    table = caption_table(rows)
    captions = table["caption"].to_pylist()
    for folder, change in (("hostile", True), ("clean", False)):
        texts = [f"{text} {harm[i]}" if change and i in harm else text for i, text in enumerate(captions)]
        (root / folder).mkdir(parents=True)
        at = table.schema.get_field_index("caption")
        pq.write_table(table.set_column(at, "caption", pa.array(texts)), root / folder / "a.parquet")
    return root


def test_hostile_rows_fail_alone(tmp_path: Path) -> None:
    data = write(tmp_path / "data", HARM)
    run(make_job(data / "hostile", tmp_path / "expected", FakeEngine(refused=tuple(HARM.values()))))
    job = make_job(data / "hostile", tmp_path / "out", HostileEngine(), row_timeout=TIMEOUT)
    watch = RecordingWatch()
    summary = prepare(job).execute(LocalExecutor(), watch)
    assert watch.rows == summary["rows"] == 25
    found = pq.read_table(tmp_path / "out" / "a.parquet").to_pylist()
    clean = pq.read_table(tmp_path / "expected" / "a.parquet").to_pylist()
    assert {i: row["status"] for i, row in enumerate(found) if row["status"] != clean[i]["status"]} == STATUS
    assert [row for i, row in enumerate(found) if i not in HARM] == [
        row for i, row in enumerate(clean) if i not in HARM
    ]
    for i in (8, 17):
        cause = "a row or batch took longer than --row-timeout"
        assert f"in time ({cause}, {cause}), even when it was alone; raise --row-timeout" in found[i]["error"]
    assert "the encoder raised" in found[12]["error"]
    assert "Unable to allocate" in found[14]["error"]
    assert run(job)["failed"] == summary["failed"], "a finished run"


def test_slow_rows_do_not_hang(tmp_path: Path) -> None:
    data = write(tmp_path / "data", dict.fromkeys(range(10), "slow-encode"), rows=10)
    summary = run(make_job(data / "hostile", tmp_path / "out", HostileEngine(), row_timeout=1.5, rows_per_unit=10))
    assert set(summary["failures"]) == {"image_unreadable"}


def test_an_abandoned_thread_commits_nothing(tmp_path: Path) -> None:
    data = write(tmp_path / "data", {2: "nap-score"}, rows=5)
    before = threading.active_count()
    run(make_job(data / "hostile", tmp_path / "out", HostileEngine(), row_timeout=0.7))
    table = pq.read_table(tmp_path / "out" / "a.parquet")
    assert table["status"].to_pylist()[2] == "row_timeout"
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() == before, "it ended when its row was done"
    assert pq.read_table(tmp_path / "out" / "a.parquet").equals(table)


class Isolating(LocalExecutor):
    """Isolates as if a process scored the unit; the real one takes seconds for each row."""

    def __init__(self) -> None:
        self.isolated: list[int] = []

    def isolate(self, work: UnitWork, unit: Unit) -> UnitMarker:
        self.isolated.append(unit.start)
        return work.run(unit, FakeEngine().encoder(), FakeEngine().scorer())


def test_a_run_in_which_everything_hangs_ends_and_gets_further_when_it_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MAX_ABANDONED", 2)
    data = write(tmp_path / "data", dict.fromkeys(range(25), "hang-encode"))
    job = make_job(data / "hostile", tmp_path / "out", HostileEngine(), row_timeout=0.1)
    executor = Isolating()
    with pytest.raises(RunError, match=r"rows of 3 units hung for over 0\.1 s each.*--executor ray"):
        prepare(job).execute(executor, RecordingWatch())
    assert executor.isolated == [0, 5, 10]
    assert prepare(job).execute(executor, RecordingWatch())["rows"] == 25
    assert executor.isolated == [0, 5, 10, 15, 20]
