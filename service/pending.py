"""What goes through the batcher, and how it may fail."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field

from scorer.results import Result
from scorer.types import EncodedSample


class NotReadyError(Exception):
    """The model is not loaded yet, does not work any more, or the service stops."""


class QueueFullError(Exception):
    """There is no room for another sample."""


class DeadlinePassedError(Exception):
    """The sample's deadline passed before the model came to it."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A sample's result, and the seconds it took: waiting for its batch, and the batch's own."""

    result: Result
    queue_seconds: float
    engine_seconds: float


@dataclass(eq=False, slots=True)
class PendingSample:
    """A sample on its way: the future is what its waiter holds.

    Attributes:
        contrast: what its picture is replaced by; samples of one batch have the same.
        deadline, queued, started: by ``time.monotonic``.
    """

    row: EncodedSample
    contrast: str
    deadline: float
    future: Future[Scored] = field(default_factory=Future)
    queued: float = field(default_factory=time.monotonic)
    started: float = 0.0
