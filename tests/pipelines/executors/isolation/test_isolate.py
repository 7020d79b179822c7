"""A row that kills its worker costs itself, and bounded work."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.executors.isolation import isolate as isolation
from pipelines.executors.isolation.heartbeat import HUNG_STATUS, LAST_RESORT_STATUS
from pipelines.executors.isolation.isolate import RowWorker, WorkerDiedError, isolate
from pipelines.output import attempts
from pipelines.output.plan import Unit
from pipelines.run.job import PreparedRun, prepare
from scorer.errors import ModelError, RunError
from scorer.results import Failure, TokenScores
from tests.conftest import ROOT
from tests.pipelines.deadly_engine import DeadlyEngine
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import caption_table, make_job, run, write_dataset
from tests.pipelines.hostile_engine import HostileEngine
from tests.pipelines.ray_engines import UnloadableEngine

SHARDS = {"a.parquet": 12, "b.parquet": 5}
DEADLY = "7"  # a word of row 7 of each shard that has one


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", SHARDS)


def prepared(dataset: Path, output: Path, **engine: Any) -> tuple[PreparedRun, Unit]:
    """A run, and its unit that holds row 7 of a.parquet."""
    run_ = prepare(make_job(dataset, output, DeadlyEngine(log=str(output.parent / "log"), **engine)))
    return run_, run_.plans[0].units[1]


def test_attempts_are_counted_by_stage_and_unit(dataset: Path, output: Path) -> None:
    run_, unit = prepared(dataset, output)
    store, other = run_.work.store, run_.plans[0].units[0]
    begun = [attempts.begin(store, unit, "score", "a") for _ in range(4)]
    assert begun == [attempts.Attempt(), attempts.Attempt(), None, None]
    assert attempts.begin(store, unit, "encode", "a")
    assert attempts.begin(store, other, "score", "a")


def test_attempts_of_a_session_that_ended_by_itself_do_not_count(dataset: Path, output: Path) -> None:
    run_, unit = prepared(dataset, output)
    store = run_.work.store
    for session in "abcd":
        assert attempts.begin(store, unit, "score", session), "the earlier ones were interrupted"
        attempts.end_session(store, session)
    assert attempts.begin(store, unit, "score", "e")
    assert attempts.begin(store, unit, "score", "f")
    assert attempts.begin(store, unit, "score", "g") is None, "e and f may have died of a row"


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"/../x y"])
def test_damaged_records_count_as_attempts_and_name_the_cut(dataset: Path, output: Path, damage: bytes) -> None:
    run_, unit = prepared(dataset, output)
    store = run_.work.store
    attempts.begin(store, unit, "score", "a")
    store.put(f"_attempts/{unit.id}.score.1", damage)
    assert attempts.begin(store, unit, "score", "b")
    assert attempts.begin(store, unit, "score", "c") is None
    store.put(f"_attempts/{unit.id}.cut.1", damage)
    with pytest.raises(RunError, match=r"cut\.1 should hold the number of tokens.*delete it and run"):
        attempts.cut_of(store, unit)


def test_a_cut_is_kept_for_later_attempts_and_only_shrinks(dataset: Path, output: Path) -> None:
    run_, unit = prepared(dataset, output)
    store, other = run_.work.store, run_.plans[0].units[0]
    assert attempts.begin(store, unit, "score", "a") == attempts.Attempt(None)
    assert [attempts.cut(store, unit, tokens) for tokens in (4096, 1024, 4096)] == [4096, 1024, 1024]
    assert attempts.begin(store, unit, "score", "b") == attempts.Attempt(1024)
    assert attempts.cut_of(store, other) is None


@pytest.mark.parametrize("how", ["deadly", "deadly_to_encode"])
def test_the_deadly_row_is_quarantined_and_its_neighbours_are_scored(dataset: Path, output: Path, how: str) -> None:
    run_, unit = prepared(dataset, output, **{how: DEADLY})
    tally = isolate(run_.work, unit).tally
    assert (tally.rows, tally.ok) == (5, 3)
    assert tally.failures.keys() == {"text_missing", "worker_crash"}  # row 5 has no caption
    (example,) = tally.failures["worker_crash"].examples
    assert (example.row_index, example.sample_id) == (7, "a.parquet7")
    cause = "SIGSEGV" if how == "deadly" else "exit status 7"
    assert example.message == (
        f"the worker process died on this row 2 times ({cause}, {cause}), even when it was alone; check its image, and "
        "give the worker more memory if that ran out"
    )


def test_a_process_that_dies_says_of_what_and_on_which_row(dataset: Path, output: Path) -> None:
    run_, unit = prepared(dataset, output, deadly=DEADLY)
    sacrifice = RowWorker(run_.work)
    rows = [Unit("row", unit.shard, i, i + 1) for i in range(5, 9)]
    try:
        assert isinstance(sacrifice.score_row(rows[0]), Failure)  # it has no caption
        assert isinstance(sacrifice.score_row(rows[1]), TokenScores)
        with pytest.raises(WorkerDiedError, match="SIGSEGV") as caught:
            sacrifice.score_row(rows[2])
        assert caught.value.sample_id == "a.parquet7"
        assert isinstance(sacrifice.score_row(rows[3]), TokenScores), "by a fresh process"
    finally:
        sacrifice.close()
    assert DeadlyEngine(log=run_.work.engine.log).loads == 2  # type: ignore[attr-defined]


@pytest.mark.timeout(120)
def test_a_row_whose_steps_are_each_in_time_is_not_blamed_beside_one_that_kills(output: Path) -> None:
    """Its encoding and its batch are watched one by one when it shares a unit, and must be so when it is alone."""
    table = caption_table(3).to_pydict()
    table["caption"][0] += " nap-encode nap-score"  # 2 seconds each
    table["caption"][1] += " killed-encode"
    (data := output.parent / "data").mkdir()
    pq.write_table(pa.table(table, caption_table(0).schema), data / "a.parquet")
    run_ = prepare(make_job(data, output, HostileEngine(), row_timeout=3.0))
    assert isolate(run_.work, run_.plans[0].units[0]).tally.failures.keys() == {"worker_crash"}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("word", ["hang-encode", "hang-score", "clutch-encode"])
def test_a_process_that_hangs_on_a_row_ends_without_its_parent_too(output: Path, word: str) -> None:
    table = caption_table(1).to_pydict()
    table["caption"][0] += f" {word}"
    (data := output.parent / "data").mkdir()
    pq.write_table(pa.table(table, caption_table(0).schema), data / "a.parquet")
    run_ = prepare(make_job(data, output, HostileEngine(), row_timeout=0.4))
    (unit,) = run_.plans[0].units
    with pytest.raises(WorkerDiedError, match="longer than --row-timeout") as caught:
        RowWorker(run_.work).score_row(unit)
    assert (caught.value.hung, caught.value.sample_id) == (True, "0")
    orphan = RowWorker(run_.work)
    orphan._start()
    process, connection = orphan._process, orphan._connection
    assert process is not None
    assert connection is not None
    orphan._send(unit)
    assert orphan._receive(None) == "0", "it has begun with the row"
    connection.close()
    try:
        assert process.wait(timeout=30) in (HUNG_STATUS, LAST_RESORT_STATUS)
    finally:
        process.kill()
        process.wait()


def test_the_process_imports_nothing_of_the_working_directory(
    dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's folder may have packages of any name."""
    run_, unit = prepared(dataset, output)
    for name in ("pipelines", "scorer", "service"):
        (output.parent / "theirs" / name).mkdir(parents=True)
        (output.parent / "theirs" / name / "__init__.py").write_text("raise RuntimeError('not ours')")
    monkeypatch.chdir(output.parent / "theirs")
    assert isolate(run_.work, unit).tally.rows == 5


def test_a_run_that_dies_of_a_row_comes_to_its_end(dataset: Path, output: Path) -> None:
    """Without Ray: the command, given again and again by whoever watches over it."""
    clean = output.parent / "clean"
    run(make_job(dataset, clean, FakeEngine(refused=(DEADLY,))))
    log = output.parent / "log"
    command = [
        sys.executable,
        "-m",
        "tests.pipelines.executors.isolation.deadly_driver",
        str(dataset),
        str(output),
        DEADLY,
        str(log),
    ]
    codes = [subprocess.run(command, cwd=ROOT, capture_output=True).returncode for _ in range(3)]
    assert codes == [-signal.SIGSEGV, -signal.SIGSEGV, 0]
    assert_quarantined(output, clean)
    assert len(log.read_text().split()) == 4 + isolation.MAX_DEATHS + 1, (
        "each run, the whole unit, each that died of the row, the last"
    )


def assert_quarantined(output: Path, clean: Path) -> None:
    """Row 7 of a.parquet failed with worker_crash; every other row is as in a run without it."""
    assert json.loads((output / "_SUCCESS").read_text())["failures"]["worker_crash"]["count"] == 1
    for name, rows in SHARDS.items():
        found, expected = (pq.read_table(folder / name).to_pylist() for folder in (output, clean))
        assert [row["row_index"] for row in found] == list(range(rows))
        if name == "a.parquet":
            row, _ = found.pop(7), expected.pop(7)
            assert (row["status"], row["sample_id"], row["token_weights"]) == ("worker_crash", "a.parquet7", None)
            assert "died on this row 2 times (SIGSEGV, SIGSEGV)" in row["error"]
        assert found == expected


def test_a_committed_unit_is_not_tried_again(dataset: Path, output: Path) -> None:
    run_, unit = prepared(dataset, output, deadly="nothing")
    work = run_.work
    marker = work.run(unit, FakeEngine().encoder(), FakeEngine().scorer())
    assert isolate(work, unit) == marker
    assert DeadlyEngine(log=str(output.parent / "log")).loads == 0


def test_a_model_that_dies_while_it_loads_is_no_rows_fault(dataset: Path, output: Path) -> None:
    run_, unit = prepared(dataset, output, deadly_to_load=True)
    with pytest.raises(RunError, match=r"died of SIGKILL \(out of memory\?\) while it loaded the model; check that"):
        isolate(run_.work, unit)


def test_a_model_that_does_not_load_says_so_itself(dataset: Path, output: Path) -> None:
    run_ = prepare(make_job(dataset, output, UnloadableEngine()))
    with pytest.raises(ModelError, match="the weights are not what they seemed"):
        isolate(run_.work, run_.plans[0].units[0])


def test_where_every_row_is_deadly_the_rows_are_not_blamed(
    dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "MAX_BLAMED", 2)
    run_, unit = prepared(dataset, output, deadly="kite")
    with pytest.raises(RunError, match=r"2 rows were tried one by one and none can be scored.*check the model"):
        isolate(run_.work, unit)
    assert DeadlyEngine(log=str(output.parent / "log")).loads == 1 + 2 * isolation.MAX_DEATHS
