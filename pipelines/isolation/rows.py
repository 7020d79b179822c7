"""A unit whose workers died: its rows are scored one by one in a process that may die in our place.

That process is known to die on a row, not guessed to: the row it was sent is the row it died on. A row on which it
dies :data:`MAX_DEATHS` times is written as failed with ``worker_crash``; a fresh process goes on with the next row.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from pipelines.run.commit import UnitMarker, find_marker
from pipelines.run.plan import Unit
from pipelines.run.score_unit import UnitWork
from scorer.errors import FailureCode, RunError
from scorer.types import Failure, Result, TokenScores, Usage

log = logging.getLogger(__name__)

MAX_DEATHS: Final = 2
"""Processes that may die on one row; the first may have been killed for another's sake."""
MAX_BLAMED: Final = 8
"""Rows of a unit that may fail so while none is scored: then it is not the rows that are wrong."""
_BLAMED: Final = (FailureCode.SCORING_FAILED, FailureCode.WORKER_CRASH)


class WorkerDiedError(Exception):
    """The sacrificial process died; says of what, and on the row of which id, if it came to know that."""

    def __init__(self, cause: str, sample_id: str | None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.sample_id = sample_id


class Sacrifice:
    """A :mod:`pipelines.isolation.sacrifice` process, started at first use and again after each death."""

    def __init__(self, work: UnitWork) -> None:
        self._work = work
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def score(self, row: Unit) -> Result:
        """The result of a unit of one row.

        Raises:
            WorkerDiedError: the process died on it.
            Exception: the process's own: the model does not load, the shard cannot be read.
            RunError: the process died before it came to the row.
        """
        if self._process is None:
            self._start()
        self._send(row)
        sample_id = self._receive(None)
        result: Result = self._receive(sample_id)
        return result

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            assert self._connection is not None
            self._connection.close()
            self._process.kill()
            self._process.wait()
            self._process = self._connection = None

    def _start(self) -> None:
        self._connection, theirs = Pipe()
        root = str(Path(__file__).resolve().parents[2])
        # What this process can import, that one must, to unpickle the work.
        paths = os.pathsep.join([root, *filter(None, sys.path)])
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.isolation.sacrifice", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
            )
        self._send(self._work)
        try:
            self._receive(None)
        except WorkerDiedError as death:
            problem = f"a worker process died of {death.cause} while it loaded the model"
            raise RunError(
                f"{problem}; check that the model fits the memory of the worker and of its device"
            ) from death

    def _send(self, message: object) -> None:
        assert self._connection is not None
        with suppress(BrokenPipeError, ConnectionResetError):  # dead: receiving says so
            self._connection.send(message)

    def _receive(self, sample_id: str | None) -> Any:
        assert self._connection is not None
        assert self._process is not None
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            cause = _cause_of_death(self._process.wait())
            self.close()
            raise WorkerDiedError(cause, sample_id) from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def isolate(work: UnitWork, unit: Unit) -> UnitMarker:
    """Score a unit row by row in sacrificial processes, and commit it.

    Raises:
        RunError: no row at all can be scored: not the rows are wrong but the model, or the machine.
    """
    committed = find_marker(work.store, unit)
    if committed is not None:
        return committed
    log.warning("unit %s of %s: its workers died; trying its rows one by one", unit.id, unit.shard.name)
    started = time.time()
    results: list[Result] = []
    sacrifice = Sacrifice(work)
    try:
        for row_index in range(unit.start, unit.stop):
            results.append(_score_row(sacrifice, Unit(f"{unit.id}+{row_index}", unit.shard, row_index, row_index + 1)))
            _blame_rows_only(unit, results)
    finally:
        sacrifice.close()
    return work.commit(unit, results, started, "isolated", Usage())


def _score_row(sacrifice: Sacrifice, row: Unit) -> Result:
    sample_id, causes = row.shard.row_id(row.start), []
    for _ in range(MAX_DEATHS):
        try:
            return sacrifice.score(row)
        except WorkerDiedError as death:
            sample_id = death.sample_id or sample_id
            causes.append(death.cause)
    log.error("row %d of %s killed %d processes (%s)", row.start, row.shard.name, MAX_DEATHS, ", ".join(causes))
    message = f"the worker process died on this row {MAX_DEATHS} times ({', '.join(causes)}), also when it was alone"
    return Failure(sample_id, FailureCode.WORKER_CRASH, message)


def _blame_rows_only(unit: Unit, results: Sequence[Result]) -> None:
    """Where everything fails, a whole dataset must not be stored as failed."""
    blamed = [result for result in results if isinstance(result, Failure) and result.code in _BLAMED]
    if len(blamed) >= MAX_BLAMED and not any(isinstance(result, TokenScores) for result in results):
        raise RunError(
            f"unit {unit.id} of shard {unit.shard.name}: {len(blamed)} rows were tried one by one and none can be "
            f"scored, the last: {blamed[-1].message}; check the model, the memory and the device of the worker"
        )


def _cause_of_death(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    killed = -status == signal.SIGKILL  # by the kernel where memory runs out, by whoever has the right
    return signal.Signals(-status).name + (" (out of memory?)" if killed else "")
