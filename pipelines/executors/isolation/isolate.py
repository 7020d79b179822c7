"""Score a unit whose workers died or hung: its rows one by one, in a sacrificial process.

If that process dies, the row at fault is known rather than guessed: it is the row that was sent last. A row on which it
dies :data:`MAX_DEATHS` times is stored as failed with ``worker_crash``, or with ``row_timeout`` if it took too long
each time; a new process continues with the next row.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from pipelines.executors.isolation.process import RowWorker, WorkerDiedError
from pipelines.output.commit import UnitMarker, find_marker
from pipelines.output.plan import Unit
from pipelines.run.score_unit import ScoredUnit, UnitWork
from scorer.errors import FailureCode, RunError
from scorer.results import Failure, Result, TokenScores
from scorer.types import Usage

log = logging.getLogger(__name__)

MAX_DEATHS: Final = 2
"""Processes that may die on one row: the first may have been killed for a reason outside the row."""
MAX_BLAMED: Final = 8
"""Rows of a unit that may fail in these ways while none is scored; at this number, the rows are not to blame."""
_BLAMED: Final = (FailureCode.SCORING_FAILED, FailureCode.WORKER_CRASH, FailureCode.ROW_TIMEOUT)


def isolate(work: UnitWork, unit: Unit) -> UnitMarker:
    """Score a unit row by row in sacrificial processes, and commit it.

    Raises:
        RunError: no row can be scored: then the model or the machine is at fault, not the rows.
    """
    committed = find_marker(work.store, unit)
    if committed is not None:
        return committed
    log.warning("unit %s of %s: its workers died or hung; trying its rows one by one", unit.id, unit.shard.name)
    started = time.time()
    results: list[Result] = []
    worker = RowWorker(work)
    try:
        for row_index in range(unit.start, unit.stop):
            results.append(_score_row(worker, Unit(f"{unit.id}+{row_index}", unit.shard, row_index, row_index + 1)))
            _refuse_if_none_is_scored(unit, results)
    finally:
        worker.close()
    stages = {"score": time.time() - started}
    return work.commit(unit, ScoredUnit(results, started, "isolated", Usage(), stages))


def _score_row(worker: RowWorker, row: Unit) -> Result:
    deaths: list[WorkerDiedError] = []
    for _ in range(MAX_DEATHS):
        try:
            return worker.score(row)
        except WorkerDiedError as death:
            deaths.append(death)
    sample_id = next((death.sample_id for death in deaths if death.sample_id), row.shard.row_id(row.start))
    causes = ", ".join(death.cause for death in deaths)
    log.error("row %d of %s ended %d processes (%s)", row.start, row.shard.name, MAX_DEATHS, causes)
    if all(death.hung for death in deaths):
        message = (
            f"the row was not encoded and scored in time ({causes}), even when it was alone; raise --row-timeout if it "
            "is slow rather than stuck"
        )
        return Failure(sample_id, FailureCode.ROW_TIMEOUT, message)
    message = f"the worker process died on this row {MAX_DEATHS} times ({causes}), even when it was alone"
    return Failure(sample_id, FailureCode.WORKER_CRASH, message)


def _refuse_if_none_is_scored(unit: Unit, results: Sequence[Result]) -> None:
    """Raise RunError once :data:`MAX_BLAMED` rows failed and none was scored. Called per row: each may take minutes."""
    blamed = [result for result in results if isinstance(result, Failure) and result.code in _BLAMED]
    if len(blamed) >= MAX_BLAMED and not any(isinstance(result, TokenScores) for result in results):
        raise RunError(
            f"unit {unit.id} of shard {unit.shard.name}: {len(blamed)} rows were tried one by one and none can be "
            f"scored, the last because {blamed[-1].message}; check the model, the memory and the device of the worker"
        )
