"""The one who is told how a run goes on, and has the displays show it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from pipelines.output.tally import Tally
from pipelines.progress.snapshot import Snapshot
from pipelines.run.executor import Workers

log = logging.getLogger(__name__)

PERIOD: Final = 10.0
"""Seconds between two looks, whether or not anything was committed."""


class Display(Protocol):
    """Shows snapshots. What it raises is logged, and costs the run nothing."""

    def begin(self, snapshot: Snapshot) -> None:
        """Before the first unit."""
        ...

    def add(self, snapshot: Snapshot) -> None:
        """A unit was committed. Called from the thread that drives the run: must not wait for anything."""
        ...

    def tick(self, snapshot: Snapshot) -> None:
        """Another :data:`PERIOD` went by. Called from a thread of its own: may take its time."""
        ...

    def end(self, snapshot: Snapshot) -> None:
        """After the last unit, or whatever ended the run."""
        ...


class ProgressWatch:
    """See :class:`pipelines.run.job.Watch`.

    Args:
        workers: tells who is at work.
    """

    def __init__(self, displays: Sequence[Display], workers: Callable[[], Workers | None]) -> None:
        self._displays = displays
        self._workers = workers
        self._rows = self._before = 0
        self._tally = Tally()
        self._ended = threading.Event()
        self._ticking: threading.Thread | None = None

    def begin(self, rows: int, done: int) -> None:
        self._rows, self._before = rows, done
        self._show(lambda display, snapshot: display.begin(snapshot))
        if done < rows:
            self._ticking = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._ticking.start()

    def add(self, tally: Tally) -> None:
        self._tally = self._tally + tally
        self._show(lambda display, snapshot: display.add(snapshot))

    def end(self) -> None:
        self._ended.set()
        if self._ticking is not None:
            self._ticking.join()
        self._show(lambda display, snapshot: display.end(snapshot))

    def _tick(self) -> None:
        while not self._ended.wait(PERIOD):
            self._show(lambda display, snapshot: display.tick(snapshot))

    def _show(self, show: Callable[[Display, Snapshot], None]) -> None:
        snapshot = Snapshot(self._rows, self._before, self._tally, self._workers())
        for display in self._displays:
            try:
                show(display, snapshot)
            except Exception as error:
                log.warning("progress is not shown by %s: %r", type(display).__name__, error)
