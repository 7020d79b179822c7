"""Whether encoding and scoring come on: the sign of life by which a row that hangs is found out.

Only what may hang for a row's sake is watched: its encoding (which decodes its pictures), and a batch's way through
the model. Reading waits for storage, whose clients have limits of their own; loading a model takes what it takes.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from pipelines.run.engine import RowEncoder, RowScorer
from scorer.results import Failure, Result
from scorer.types import EncodedSample, Sample, Usage

HUNG_STATUS: Final = 86
"""Exit status of a process that ended itself because it hung."""
_MAX_POLL: Final = 1.0
_STDERR: Final = 2


class AbandonedError(BaseException):
    """Raised in a thread that hung, was left behind, and came to itself after all: it must do nothing more.

    No Exception, which would be taken for a row's.
    """


class Heartbeat:
    """One thread's signs of life, read by another.

    Args:
        timeout: seconds that a row may be encoded, or a batch scored, before that is called a hang; None is for ever.
    """

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self.abandoned = False
        self._since: float | None = None
        self._usage: Callable[[], Usage] = Usage
        self._before = Usage()
        # Of the watching thread alone; what is above, it only reads.
        self._watched: float | None = None
        self._seen = Usage()
        self._moved = 0.0

    @property
    def poll(self) -> float:
        """Seconds between two looks."""
        return _MAX_POLL if self.timeout is None else min(_MAX_POLL, self.timeout / 4)

    @property
    def busy(self) -> bool:
        """Whether something is being watched now."""
        return self._since is not None

    def hangs(self) -> bool:
        """Whether there was no sign of life for longer than the timeout. To be asked every :attr:`poll` seconds."""
        since, now = self._since, time.monotonic()
        if since is None or self.timeout is None:
            return False
        if since != self._watched:
            self._watched, self._seen, self._moved = since, self._before, since
        usage = self._usage()
        if usage != self._seen:  # another batch came through
            self._seen, self._moved = usage, now
        return now - self._moved > self.timeout

    @contextmanager
    def beating(self, usage: Callable[[], Usage] = Usage) -> Iterator[None]:
        """Watch a block; ``usage`` grows as it comes on, if that can be seen from outside."""
        self._check()
        self._usage, self._before = usage, usage()
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None
        self._check()

    def _check(self) -> None:
        if self.abandoned:
            raise AbandonedError


class WatchedEncoder:
    """See :class:`pipelines.run.engine.RowEncoder`; every row is a sign of life."""

    def __init__(self, inner: RowEncoder, heartbeat: Heartbeat) -> None:
        self._inner = inner
        self._heartbeat = heartbeat

    def try_encode(self, sample: Sample) -> EncodedSample | Failure:
        with self._heartbeat.beating():
            return self._inner.try_encode(sample)


class WatchedScorer:
    """See :class:`pipelines.run.engine.RowScorer`; every batch is a sign of life."""

    def __init__(self, inner: RowScorer, heartbeat: Heartbeat) -> None:
        self._inner = inner
        self._heartbeat = heartbeat

    @property
    def path(self) -> str:
        return self._inner.path

    @property
    def usage(self) -> Usage:
        return self._inner.usage

    def score_encoded(self, rows: Sequence[EncodedSample | Failure]) -> list[Result]:
        with self._heartbeat.beating(lambda: self._inner.usage):
            return self._inner.score_encoded(rows)


def end_process_on_hang(heartbeat: Heartbeat) -> None:
    """Have this process end itself with :data:`HUNG_STATUS` when it hangs, the stacks of its threads on its stderr."""
    if heartbeat.timeout is not None:
        threading.Thread(target=_watch, args=(heartbeat, heartbeat.timeout), name="row timeout", daemon=True).start()


def put_off_last_resort(heartbeat: Heartbeat) -> None:
    """End this process, with status 1, unless this is called again in time: a watcher calls it at each poll.

    For code in C that hangs while it holds the interpreter's lock: then no thread gets to look at anything, and only
    faulthandler's timer, which needs no lock, goes on.
    """
    if heartbeat.timeout is not None and heartbeat.busy:
        faulthandler.dump_traceback_later(heartbeat.timeout + _MAX_POLL, exit=True, file=_STDERR)
    else:
        faulthandler.cancel_dump_traceback_later()


def _watch(heartbeat: Heartbeat, timeout: float) -> None:
    while True:
        time.sleep(heartbeat.poll)
        if heartbeat.hangs():
            print(f"no row or batch came through for {timeout:g} s; this process ends", file=sys.stderr, flush=True)
            faulthandler.dump_traceback(file=_STDERR)
            os._exit(HUNG_STATUS)
        put_off_last_resort(heartbeat)
