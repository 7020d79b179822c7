"""A bounded queue, and one thread that owns the model.

    submit ─► queue ─► drop cancelled samples ─► same contrasts, token budget ─► model ─► futures

The model is loaded, warmed up and run in that thread only. Cancelling the future of a sample withdraws it; a sample
that has not been started by then is never scored.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, Protocol

from scorer.errors import FailureCode, TokensightError
from scorer.results import Failure, Result
from scorer.types import EncodedSample
from service.metrics import Metrics
from service.pending import DeadlinePassedError, NotReadyError, PendingSample, QueueFullError, Scored

logger = logging.getLogger(__name__)

_BEAT_SECONDS: Final = 1.0
_SMOOTHING: Final = 0.2


class BatchModel(Protocol):
    """The model as the thread runs it."""

    def score(self, contrasts: Sequence[str], rows: Sequence[EncodedSample]) -> list[Result]:
        """Return one result per row, in order."""
        ...

    def check(self) -> None:
        """Score a sample that is known to be valid; raise if the model does not work."""
        ...

    @property
    def batch_tokens(self) -> int:
        """Token budget of one forward pass: rows × longest row."""
        ...


class Batcher:
    """Collect samples from any thread and score them in batches.

    Args:
        load: Loads the model; called in the thread.
        capacity: Maximum number of samples in the queue.
        max_rows: Maximum number of samples in a batch.
        wait_seconds: How long the first sample of a batch waits for others.
        heartbeat_seconds: Time without a heartbeat after which the thread counts as stuck.
        on_ready: Called once the model is loaded and warm.
        on_death: Called if the thread ends for any reason other than :meth:`stop`.
    """

    def __init__(
        self,
        load: Callable[[], BatchModel],
        metrics: Metrics,
        *,
        capacity: int,
        max_rows: int,
        wait_seconds: float,
        heartbeat_seconds: float,
        on_ready: Callable[[], None] | None = None,
        on_death: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._load = load
        self._metrics = metrics
        self._capacity = capacity
        self._max_rows = max_rows
        self._wait_seconds = wait_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._on_ready = on_ready
        self._on_death = on_death
        self._queue: deque[PendingSample] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._model: BatchModel | None = None
        self._error: BaseException | None = None
        self._beat = time.monotonic()
        self._seconds_per_row = 0.0
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Start loading the model; later calls do nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self, seconds: float) -> None:
        """Stop accepting samples, score those in the queue, and end the thread, within ``seconds``."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds)
        self._refuse_waiting(NotReadyError("the service is stopping"))

    @property
    def is_loading(self) -> bool:
        """Whether the model is still being loaded."""
        return self._model is None and self._error is None and self._thread.is_alive()

    @property
    def depth(self) -> int:
        """Number of samples in the queue."""
        return len(self._queue)

    @property
    def expected_wait(self) -> float:
        """Estimated seconds until the current queue has been scored, from the speed so far."""
        return len(self._queue) * self._seconds_per_row

    def why_not_ready(self) -> str | None:
        """Return why samples cannot be scored now, or None if they can."""
        if self._error is not None:
            return f"the model's thread ended: {type(self._error).__name__}"
        if self._stopping:
            return "the service is stopping"
        if not self._thread.is_alive():
            return "the model's thread is not running"
        if self._model is None:
            return "the model is being loaded"
        silent = time.monotonic() - self._beat
        if silent > self._heartbeat_seconds:
            return (
                f"the model's thread has been silent for {silent:.0f} s, heartbeat_seconds={self._heartbeat_seconds:g}"
            )
        return None

    def submit(self, row: EncodedSample, contrasts: tuple[str, ...], deadline: float) -> Future[Scored]:
        """Queue a sample and return the future of its result. Cancel the future to withdraw the sample.

        The future raises NotReadyError or DeadlinePassedError if the sample is not scored.

        Args:
            deadline: On the ``time.monotonic`` clock; the sample is not scored after it.

        Raises:
            NotReadyError, QueueFullError: The sample was not queued.
        """
        job = PendingSample(row, contrasts, deadline)
        with self._changed:
            if self._stopping or self._model is None or self._error is not None:
                raise NotReadyError(self.why_not_ready() or "the service is starting")
            if len(self._queue) >= self._capacity:
                raise QueueFullError(f"{len(self._queue)} samples are waiting, queue_size={self._capacity}")
            self._queue.append(job)
            self._changed.notify_all()
        job.future.add_done_callback(lambda future: self._forget(job) if future.cancelled() else None)
        return job.future

    def _forget(self, job: PendingSample) -> None:
        with self._changed:
            if job in self._queue:
                self._queue.remove(job)
                self._metrics.dropped.labels("client_gone").inc()

    def _run(self) -> None:
        batch: list[PendingSample] = []
        try:
            model = self._load()
            model.check()
            self._heartbeat()
            self._model = model
            if self._on_ready is not None:
                self._on_ready()
            while batch := self._next_batch(model):
                self._score(model, batch)
        except BaseException as error:  # whatever ends the thread must be reported
            if isinstance(error, TokensightError):  # the message says it all
                logger.error("the model's thread has ended: %s", error)
            else:
                logger.exception("the model's thread has ended")
            with self._changed:  # before failing any future: a retry must not find the service ready
                self._error = error
            reason = NotReadyError(f"the model's thread ended: {type(error).__name__}")
            for job in batch:
                if not job.future.done():
                    job.future.set_exception(reason)
            self._refuse_waiting(reason)
            if self._on_death is not None:
                self._on_death(error)

    def _heartbeat(self) -> None:
        self._beat = time.monotonic()

    def _next_batch(self, model: BatchModel) -> list[PendingSample]:
        """Return the next samples to score together; empty when the service stops."""
        with self._changed:
            while True:
                self._heartbeat()
                self._wait_for_work(model)
                batch = self._take(model)
                if batch or (self._stopping and not self._queue):
                    return batch

    def _wait_for_work(self, model: BatchModel) -> None:
        if not self._queue and not self._stopping:
            self._changed.wait(_BEAT_SECONDS)
        until = time.monotonic() + self._wait_seconds
        while self._queue and not self._stopping and not self._is_full(model):
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _is_full(self, model: BatchModel) -> bool:
        rows = len(self._queue)
        return rows >= self._max_rows or sum(job.row.length for job in self._queue) >= model.batch_tokens

    def _take(self, model: BatchModel) -> list[PendingSample]:
        """Take a batch off the queue: the oldest sample, and later ones that can run with it."""
        batch: list[PendingSample] = []
        left: deque[PendingSample] = deque()
        widest = 0
        now = time.monotonic()
        for job in self._queue:
            if job.deadline <= now:
                self._expire(job)
                continue
            fits = not batch or (
                job.contrasts == batch[0].contrasts
                and len(batch) < self._max_rows
                and (len(batch) + 1) * max(widest, job.row.length) <= model.batch_tokens
            )
            if not fits:
                left.append(job)
            elif job.future.set_running_or_notify_cancel():
                batch.append(job)
                widest = max(widest, job.row.length)
            else:
                self._metrics.dropped.labels("client_gone").inc()
        self._queue = left
        return batch

    def _expire(self, job: PendingSample) -> None:
        if job.future.set_running_or_notify_cancel():
            self._metrics.dropped.labels("deadline").inc()
            job.future.set_exception(DeadlinePassedError("the deadline passed before the sample was scored"))

    def _score(self, model: BatchModel, batch: list[PendingSample]) -> None:
        started = time.monotonic()
        for job in batch:
            job.started = started
            self._metrics.queue_wait.observe(started - job.queued)
        self._metrics.batch_rows.observe(len(batch))
        self._metrics.batch_tokens.observe(sum(job.row.length for job in batch))
        self._score_or_split(model, batch)
        seconds = time.monotonic() - started
        self._metrics.engine_seconds.inc(seconds)
        per_row = seconds / len(batch)
        self._seconds_per_row += _SMOOTHING * (per_row - self._seconds_per_row)

    def _score_or_split(self, model: BatchModel, batch: list[PendingSample]) -> None:
        """Score a batch; if that raises, score its halves, down to the sample at fault."""
        self._heartbeat()
        started = time.monotonic()
        try:
            results = model.score(batch[0].contrasts, [job.row for job in batch])
            if len(results) != len(batch):
                raise AssertionError(f"{len(batch)} rows went in, {len(results)} came out")
        except Exception as error:
            logger.exception("scoring %d samples failed", len(batch))
            if len(batch) > 1:
                middle = len(batch) // 2
                self._score_or_split(model, batch[:middle])
                self._score_or_split(model, batch[middle:])
                return
            model.check()  # raises if the model is at fault, not the sample
            results = [_raised(batch[0].row, error)]
        seconds = time.monotonic() - started
        for job, result in zip(batch, results, strict=True):
            job.future.set_result(Scored(result, job.started - job.queued, seconds))

    def _refuse_waiting(self, error: Exception) -> None:
        with self._changed:
            waiting, self._queue = self._queue, deque()
        for job in waiting:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)


def _raised(row: EncodedSample, error: Exception) -> Failure:
    reason = f"the model raised {type(error).__name__} on this sample alone, and on no other; change the sample"
    return Failure(row.sample_id, FailureCode.SCORING_FAILED, reason)
