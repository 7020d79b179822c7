"""Watch whether encoding and scoring make progress, to find a row that hangs.

Only the steps that a row can hang are watched: its encoding, which decodes its images, and a batch's pass through the
model. Reading is not watched, since storage clients have their own timeouts; nor is loading a model, which may take
any time.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from pipelines.output.attempts import Stage
from pipelines.run.engine import RowEncoder, RowScorer
from scorer.results import Failure, Result
from scorer.types import EncodedSample, Sample, Usage

HUNG_STATUS: Final = 86
"""Exit status of a process that ended itself because it hung."""
LAST_RESORT_STATUS: Final = 1
"""Exit status of a process that :func:`put_off_last_resort` ended; faulthandler knows no other."""
_MAX_POLL: Final = 1.0
_STDERR: Final = 2


class AbandonedError(BaseException):
    """Raised in a thread that hung, was abandoned, and then resumed after all: it must do nothing more.

    It is not an Exception, which would be taken for a row's failure.
    """


class Heartbeat:
    """Signs of life of a working thread, read by a watching thread.

    Args:
        timeout: seconds that encoding a row or scoring a batch may take before it counts as hung; None means no limit.

    Attributes:
        abandoned: set by the watching thread: the working thread must do nothing more.
        step: the step that is watched, or was last: ``encode`` or ``score``.
    """

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self.abandoned = False
        self.step: Stage = "score"
        self._since: float | None = None
        self._usage: Callable[[], Usage] = Usage
        self._before = Usage()
        # Written by the watching thread alone; it only reads the attributes above.
        self._watched: float | None = None
        self._seen = Usage()
        self._moved = 0.0

    @property
    def poll(self) -> float:
        """Seconds between two checks."""
        return _MAX_POLL if self.timeout is None else min(_MAX_POLL, self.timeout / 4)

    @property
    def busy(self) -> bool:
        """Whether a step is being watched now."""
        return self._since is not None

    def hangs(self) -> bool:
        """Whether there was no sign of life for longer than the timeout. Call this every :attr:`poll` seconds."""
        since, now = self._since, time.monotonic()
        if since is None or self.timeout is None:
            return False
        if since != self._watched:
            self._watched, self._seen, self._moved = since, self._before, since
        usage = self._usage()
        if usage != self._seen:  # another batch was finished
            self._seen, self._moved = usage, now
        return now - self._moved > self.timeout

    @contextmanager
    def beating(self, usage: Callable[[], Usage] = Usage, step: Stage = "score") -> Iterator[None]:
        """Watch a block; ``usage`` returns counts that grow as it makes progress, if this can be seen from outside."""
        self._check()
        self._begin(usage, step)
        try:
            yield
        finally:
            self._end()
        self._check()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Do not watch a block within a block that is watched: it waits for something that watches itself."""
        usage, step = self._usage, self.step
        self._end()
        yield  # nothing to restore if this raises: the block around it ends as well
        self._check()
        self._begin(usage, step)

    def _begin(self, usage: Callable[[], Usage], step: Stage) -> None:
        self._usage, self._before, self.step = usage, usage(), step
        self._since = time.monotonic()
        put_off_last_resort(self)  # here: if the block holds the interpreter's lock from the start, no watcher can run

    def _end(self) -> None:
        self._since = None
        put_off_last_resort(self)

    def _check(self) -> None:
        if self.abandoned:
            raise AbandonedError


class WatchedEncoder:
    """See :class:`pipelines.run.engine.RowEncoder`; every encoded row is a sign of life."""

    def __init__(self, inner: RowEncoder, heartbeat: Heartbeat) -> None:
        self._inner = inner
        self._heartbeat = heartbeat

    def try_encode(self, sample: Sample) -> EncodedSample | Failure:
        with self._heartbeat.beating(step="encode"):
            return self._inner.try_encode(sample)


class WatchedScorer:
    """See :class:`pipelines.run.engine.RowScorer`; every scored batch is a sign of life, and so is asking for a row.

    Waiting for a row is not watched: where rows are encoded in this process, :class:`WatchedEncoder` does.
    """

    def __init__(self, inner: RowScorer, heartbeat: Heartbeat) -> None:
        self._inner = inner
        self._heartbeat = heartbeat

    @property
    def path(self) -> str:
        return self._inner.path

    @property
    def usage(self) -> Usage:
        return self._inner.usage

    def score_batches(self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int) -> list[Result]:
        with self._heartbeat.beating(lambda: self._inner.usage):
            return self._inner.score_batches(self._awaited(rows), max_batch_tokens)

    def _awaited(self, rows: Iterable[EncodedSample | Failure]) -> Iterator[EncodedSample | Failure]:
        waiting = iter(rows)
        while True:
            with self._heartbeat.resting():
                row = next(waiting, None)
            if row is None:
                return
            yield row
            del row  # frees its pixels while the next one is waited for


def end_process_on_hang(heartbeat: Heartbeat) -> None:
    """Make this process exit with :data:`HUNG_STATUS` when it hangs, after writing its threads' stacks to stderr."""
    if heartbeat.timeout is not None:
        threading.Thread(target=_watch, args=(heartbeat, heartbeat.timeout), name="row timeout", daemon=True).start()


def put_off_last_resort(heartbeat: Heartbeat) -> None:
    """End this process with :data:`LAST_RESORT_STATUS` unless this is called again in time.

    The step that is watched calls it when it begins and ends, and its watcher at each poll.

    This catches C code that hangs while holding the global interpreter lock: no Python thread can run then, and only
    faulthandler's timer, which needs no lock, still does.
    """
    if heartbeat.timeout is not None and heartbeat.busy:
        faulthandler.dump_traceback_later(heartbeat.timeout + _MAX_POLL, exit=True, file=_STDERR)
    else:
        faulthandler.cancel_dump_traceback_later()


def _watch(heartbeat: Heartbeat, timeout: float) -> None:
    while True:
        time.sleep(heartbeat.poll)
        if heartbeat.hangs():
            print(f"no row or batch was finished for {timeout:g} s; ending this process", file=sys.stderr, flush=True)
            faulthandler.dump_traceback(file=_STDERR)
            os._exit(HUNG_STATUS)
        put_off_last_resort(heartbeat)
