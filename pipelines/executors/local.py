"""Run units one after the other in this process: for small datasets, debugging and tests."""

from __future__ import annotations

import faulthandler
import gc
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, wait
from typing import Any, Final, TypeVar

from pipelines.executors.isolation.heartbeat import Heartbeat, WatchedEncoder, WatchedScorer, put_off_last_resort
from pipelines.executors.isolation.isolate import isolate
from pipelines.executors.thread import AbandonableThread
from pipelines.output import attempts
from pipelines.output.commit import PublishedShard, UnitMarker
from pipelines.output.plan import ShardPlan, Unit
from pipelines.run.executor import Workers
from pipelines.run.score_unit import UnitWork
from scorer.errors import RunError

T = TypeVar("T")

MAX_ABANDONED: Final = 8
"""Hung threads that a run may abandon: each keeps its memory, including the model's if it hangs there."""


class HungError(Exception):
    """A row of the unit hangs."""


class _TooManyHungError(RunError):
    """More threads were abandoned than :data:`MAX_ABANDONED`."""


class LocalExecutor:
    """See :class:`pipelines.run.executor.Executor`.

    A row that kills this process ends the run; when the command has been repeated often enough, its unit is isolated.
    A row that hangs is abandoned with its thread, and its unit is isolated after all others. If too many rows hang, the
    run ends once their units are isolated, so that the command gets further each time it is repeated.
    """

    @property
    def workers(self) -> Workers:
        return Workers(encoders=1, scorers=1, shared=True, alive=1)

    def score(self, work: UnitWork, units: Sequence[Unit]) -> Generator[UnitMarker, None, None]:
        if not units:
            return
        suspects: list[Unit] = []
        too_many: RunError | None = None
        worker = _LocalWorker(work)
        try:
            for unit in units:
                attempt = attempts.begin(work.store, unit, "score", work.session)
                if attempt is None:
                    suspects.append(unit)
                    continue
                try:
                    marker = worker.run(unit, attempt.cut)
                except HungError:
                    suspects.append(unit)
                except _TooManyHungError as error:
                    suspects.append(unit)
                    too_many = error
                    break
                else:
                    yield marker
        finally:
            worker.close()
        del worker
        if suspects:
            _free_device()
        for unit in suspects:
            yield self.isolate(work, unit)
        if too_many is not None:
            raise too_many

    def isolate(self, work: UnitWork, unit: Unit) -> UnitMarker:
        """Score a unit whose workers died or hung."""
        return isolate(work, unit)

    def publish(self, work: UnitWork, planned: ShardPlan) -> Future[PublishedShard]:
        future: Future[PublishedShard] = Future()
        future.set_result(work.publish(planned))
        return future


class _LocalWorker:
    """An encoder, a scorer and the thread that uses them; whatever hangs is abandoned and replaced."""

    def __init__(self, work: UnitWork) -> None:
        self._work = work
        self._abandoned = 0
        self._thread: AbandonableThread | None = None
        self._heartbeat = Heartbeat(work.row_timeout)
        self._encoder = work.engine.encoder()
        self._scorer = work.engine.scorer()

    def run(self, unit: Unit, cut: int | None) -> UnitMarker:
        """Encode, score and commit a unit.

        Raises:
            HungError: one of its rows hangs.
            RunError: too many rows have hung.
        """
        encoded = self._work.encode(unit, WatchedEncoder(self._encoder, self._heartbeat))
        try:
            scored = self._call(self._work.score, unit, encoded, WatchedScorer(self._scorer, self._heartbeat), cut)
        except HungError:
            hung = self._heartbeat.step
            self._replace()
            # The other of the two is sound: should the abandoned thread resume, it does nothing more with it.
            if hung == "encode":
                self._encoder = self._work.engine.encoder()
            else:
                self._scorer = self._work.engine.scorer()
            raise
        return self._work.commit(unit, scored)

    def close(self) -> None:
        """End the thread; if it is busy, after the current row."""
        self._heartbeat.abandoned = True
        if self._thread is not None:
            self._thread.close()

    def _call(self, step: Callable[..., T], *args: Any) -> T:
        if self._heartbeat.timeout is None:
            return step(*args)
        self._thread = self._thread or AbandonableThread()
        future = self._thread.submit(step, *args)
        try:
            while not wait([future], self._heartbeat.poll).done:
                put_off_last_resort(self._heartbeat)
                if self._heartbeat.hangs():
                    raise HungError
        finally:
            faulthandler.cancel_dump_traceback_later()
        return future.result()

    def _replace(self) -> None:
        self.close()
        self._thread, self._heartbeat = None, Heartbeat(self._heartbeat.timeout)
        self._abandoned += 1
        if self._abandoned > MAX_ABANDONED:
            raise _TooManyHungError(
                f"rows of {self._abandoned} units hung for over {self._heartbeat.timeout:g} s each, more than the "
                f"{MAX_ABANDONED} allowed, and this process cannot stop them; raise --row-timeout if rows are slow "
                "rather than stuck, or use --executor ray, which ends a process that hangs"
            )


def _free_device() -> None:
    """Free device memory for the model of a sacrificial process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
