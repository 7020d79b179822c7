"""Follow a run and have the displays show its progress."""

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
"""Seconds between two ticks, whether or not anything was committed."""


class Display(Protocol):
    """Shows snapshots. An exception in a display is logged and does not affect the run."""

    def begin(self, snapshot: Snapshot) -> None:
        """Show the state before the first unit."""
        ...

    def add(self, snapshot: Snapshot) -> None:
        """Show that a unit was committed. Called from the thread that drives the run, so it must not wait."""
        ...

    def tick(self, snapshot: Snapshot) -> None:
        """Show the state every :data:`PERIOD`. Called from a separate thread, so it may wait."""
        ...

    def end(self, snapshot: Snapshot) -> None:
        """Show the final state, after the last unit or when the run stopped early."""
        ...


class ProgressWatch:
    """See :class:`pipelines.run.job.Watch`.

    Args:
        workers: returns the current workers.
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
                log.warning("%s could not show progress: %r", type(display).__name__, error)
