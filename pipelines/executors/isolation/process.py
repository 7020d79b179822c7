"""Start the sacrificial process in which a unit is tried, send it rows, and end it when it hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from pipelines.executors.isolation.heartbeat import HUNG_STATUS, LAST_RESORT_STATUS
from pipelines.output.plan import Unit
from pipelines.run.score_unit import ScoredUnit, UnitWork
from scorer.errors import RunError
from scorer.results import Failure, Result

_HUNG: Final = "a row or batch took longer than --row-timeout"


class WorkerDiedError(Exception):
    """The sacrificial process died, or hung and was ended.

    Attributes:
        cause: what it died of.
        sample_id: id of the row it died on; None if it died before the row was read, or on several rows.
        hung: whether it was ended because it hung.
    """

    def __init__(self, cause: str, sample_id: str | None, hung: bool = False) -> None:
        super().__init__(cause)
        self.cause = cause
        self.sample_id = sample_id
        self.hung = hung


class RowWorker:
    """A :mod:`pipelines.executors.isolation.row_worker` process, started when first used and again after each death."""

    def __init__(self, work: UnitWork) -> None:
        self._work = work
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def score(self, unit: Unit, known: Mapping[int, Failure], cut: int | None) -> ScoredUnit:
        """Encode and score a unit without the rows whose failures are known; see :meth:`UnitWork.score`.

        Raises:
            WorkerDiedError: the process died, or ended itself because a row or a batch took longer than
                ``row_timeout``.
            RunError: the process died before it was sent the unit.
            Exception: what the process raised, as for :meth:`score_row`.
        """
        if self._process is None:
            self._start()
        self._send((unit, dict(known), cut))
        scored: ScoredUnit = self._receive(None)
        return scored

    def score_row(self, row: Unit) -> Result:
        """Score a unit of one row.

        Raises:
            WorkerDiedError: the process died on the row, or ended itself because a step took longer than
                ``row_timeout``, which is each caption's encoding and each batch's scoring, as in any other worker.
            RunError: the process died before it reached the row.
            Exception: what the process raised: the model does not load, or the shard cannot be read.
        """
        if self._process is None:
            self._start()
        self._send(row)
        sample_id = self._receive(None)  # sent once the row is read
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
        root = str(Path(__file__).resolve().parents[3])
        # The new process must be able to import all that this one can, to unpickle the work.
        paths = os.pathsep.join([root, *filter(None, sys.path)])
        with theirs:
            self._process = subprocess.Popen(
                # -P: never import from the working directory, whose files are the user's.
                [sys.executable, "-P", "-m", "pipelines.executors.isolation.row_worker", str(theirs.fileno())],
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
        with suppress(BrokenPipeError, ConnectionResetError):  # the process is dead, which receiving reports
            self._connection.send(message)

    def _receive(self, sample_id: str | None) -> Any:
        """Wait for an answer, for any time: storage may take it, and the process itself watches the other steps."""
        assert self._connection is not None
        assert self._process is not None
        since = time.monotonic()
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            status = self._process.wait()
            self.close()
            hung = self._has_hung(status, time.monotonic() - since)
            raise WorkerDiedError(_HUNG if hung else _cause_of_death(status), sample_id, hung) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _has_hung(self, status: int, seconds: float) -> bool:
        """Whether the process ended itself because it hung. A library may use the last resort's status too, at once."""
        timeout = self._work.row_timeout
        return status == HUNG_STATUS or (status == LAST_RESORT_STATUS and timeout is not None and seconds > timeout)


def _cause_of_death(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    killed = -status == signal.SIGKILL  # sent by the kernel when memory runs out, or by a user
    return signal.Signals(-status).name + (" (out of memory?)" if killed else "")
