"""Samples on their way through the batcher, their results and their errors."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field

from scorer.results import Result
from scorer.types import EncodedSample


class NotReadyError(Exception):
    """The model is not loaded yet, has died, or the service is stopping."""


class QueueFullError(Exception):
    """The queue has no room for another sample."""


class DeadlinePassedError(Exception):
    """The deadline of a sample passed before it was scored."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The result of a sample, and the seconds it took: waiting for its batch, and scoring the batch."""

    result: Result
    queue_seconds: float
    engine_seconds: float


@dataclass(eq=False, slots=True)
class PendingSample:
    """A sample in the queue or being scored.

    Attributes:
        contrasts: What replaces its image, the first and further ones; the same for all samples of a batch.
        deadline, queued, started: Times on the ``time.monotonic`` clock.
        future: Receives the result; the caller holds it.
    """

    row: EncodedSample
    contrasts: tuple[str, ...]
    deadline: float
    future: Future[Scored] = field(default_factory=Future)
    queued: float = field(default_factory=time.monotonic)
    started: float = 0.0
