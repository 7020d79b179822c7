"""Score a unit whose workers died or hung, in a sacrificial process, without the rows at fault.

The unit may merely have been in flight when its machine was lost, so it is first tried once more as it is. If the
process dies, its rows are tried one by one, so that the row at fault is known: it is the one that was sent last. A row
on which :data:`MAX_DEATHS` processes die is stored as failed with ``worker_crash``, or with ``row_timeout`` if it took
too long each time. The others are then scored together, in the batches that they would have formed without it: which
rows share a batch decides the rounding of their scores, and must not depend on what happened.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from pipelines.executors.isolation.process import RowWorker, WorkerDiedError
from pipelines.output import attempts
from pipelines.output.commit import UnitMarker, find_marker
from pipelines.output.plan import Unit
from pipelines.run.score_unit import ScoredUnit, UnitWork
from scorer.errors import FailureCode, RunError
from scorer.results import Failure, Result, TokenScores

log = logging.getLogger(__name__)

MAX_DEATHS: Final = 2
"""Processes that may die on one row, or on a unit's batches: the first may have been killed for another reason."""
MAX_BLAMED: Final = 8
"""Rows of a unit that may fail in these ways while none is scored; at this number, the rows are not to blame."""
_CUT: Final = 8
"""What the budget is divided by when rows survive alone but a process dies of their batches."""
_DEADLY: Final = (FailureCode.WORKER_CRASH, FailureCode.ROW_TIMEOUT)
_BLAMED: Final = (FailureCode.SCORING_FAILED, *_DEADLY)


def isolate(work: UnitWork, unit: Unit) -> UnitMarker:
    """Score a unit in sacrificial processes, and commit it.

    Raises:
        RunError: no row can be scored: then the model or the machine is at fault, not the rows.
    """
    committed = find_marker(work.store, unit)
    if committed is not None:
        return committed
    log.warning(
        "unit %s of %s: its workers died or hung, or its file was damaged; scoring it in a separate process",
        unit.id,
        unit.shard.name,
    )
    worker = RowWorker(work)
    try:
        try:
            scored = worker.score(unit, {}, attempts.cut_of(work.store, unit))
        except WorkerDiedError as death:
            log.warning("unit %s of %s: the process died (%s); trying its rows one by one", *_names(unit), death.cause)
            scored = _score_survivors(work, worker, unit, _find_deadly(worker, unit))
    finally:
        worker.close()
    return work.commit(unit, replace(scored, path="isolated"))


def _find_deadly(worker: RowWorker, unit: Unit) -> dict[int, Failure]:
    """Try rows one by one; return the failures of those on which processes die, by row number."""
    results: list[Result] = []
    for row_index in range(unit.start, unit.stop):
        row = Unit(f"{unit.id}+{row_index}", unit.shard, row_index, row_index + 1)
        results.append(_score_row(worker, row))
        _refuse_if_none_is_scored(unit, results)
    return {
        row_index: result
        for row_index, result in enumerate(results, unit.start)
        if isinstance(result, Failure) and result.code in _DEADLY
    }


def _score_survivors(work: UnitWork, worker: RowWorker, unit: Unit, deadly: Mapping[int, Failure]) -> ScoredUnit:
    """Score the other rows together, in smaller batches if processes die of the batches although no row is at fault."""
    cut = attempts.cut_of(work.store, unit)
    while True:
        deaths: list[str] = []
        while len(deaths) < MAX_DEATHS:
            try:
                return worker.score(unit, deadly, cut)
            except WorkerDiedError as death:
                deaths.append(death.cause)
        tokens = cut or work.engine.max_batch_tokens
        if tokens == 1:
            raise RunError(
                f"unit {unit.id} of shard {unit.shard.name}: each row can be scored alone, but a process that scores "
                f"them in turn dies ({', '.join(deaths)}); give the worker more memory"
            )
        cut = attempts.cut(work.store, unit, max(1, tokens // _CUT))
        log.warning(
            "unit %s of %s: the process died (%s); trying batches of at most %d tokens", *_names(unit), deaths[-1], cut
        )


def _score_row(worker: RowWorker, row: Unit) -> Result:
    deaths: list[WorkerDiedError] = []
    for _ in range(MAX_DEATHS):
        try:
            return worker.score_row(row)
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
    message = (
        f"the worker process died on this row {MAX_DEATHS} times ({causes}), even when it was alone; check its image, "
        "and give the worker more memory if that ran out"
    )
    return Failure(sample_id, FailureCode.WORKER_CRASH, message)


def _refuse_if_none_is_scored(unit: Unit, results: Sequence[Result]) -> None:
    """Raise RunError once :data:`MAX_BLAMED` rows failed and none was scored. Called per row: each may take minutes."""
    blamed = [result for result in results if isinstance(result, Failure) and result.code in _BLAMED]
    if len(blamed) >= MAX_BLAMED and not any(isinstance(result, TokenScores) for result in results):
        raise RunError(
            f"unit {unit.id} of shard {unit.shard.name}: {len(blamed)} rows were tried one by one and none can be "
            f"scored, the last because {blamed[-1].message}; check the model, the memory and the device of the worker"
        )


def _names(unit: Unit) -> tuple[str, str]:
    return unit.id, unit.shard.name
