"""Run cells in one or several processes, say how long is left, and hand each result over as soon as it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.gain.cells import FINE_TUNED, Cell
from benchmarks.gain.workshop import Need, Settings, Workshop

Done = Callable[[Cell, dict[str, float]], None]
"""Called with each cell and its figures, in whatever order they are finished."""

_workshop: Workshop
"""The workshop of this process."""


def _begin(settings: Settings, folder: Path, models: dict[str, Path]) -> None:
    global _workshop
    _workshop = Workshop(settings, folder, models)


def _make(need: Need) -> None:
    _workshop.make(need)


def _examine(cell: Cell) -> dict[str, float]:
    return _workshop.examine(cell)


def steps_of(cell: Cell, settings: Settings) -> int:
    """Return how many steps a cell's training takes."""
    return settings.fine_steps if cell.start == FINE_TUNED else settings.steps


def pace(found: Iterable[tuple[Cell, Mapping[str, float]]], settings: Settings) -> float | None:
    """Return the process's seconds a step of finished trainings, with their examination; None if there is none."""
    every = [(figures["process_seconds"], steps_of(cell, settings)) for cell, figures in found]
    return sum(seconds for seconds, _ in every) / sum(steps for _, steps in every) if every else None


class Progress:
    """Say how many cells are done, and how long the others will take at the pace of this run.

    Args:
        steps: how many steps each kind of start takes; the pace is that of a step.
        jobs: processes at work.
    """

    def __init__(self, cells: Sequence[Cell], settings: Settings, jobs: int) -> None:
        self._steps = {cell: steps_of(cell, settings) for cell in cells}
        self._jobs = jobs
        self._done: dict[Cell, float] = {}

    def line(self, cell: Cell, figures: dict[str, float]) -> str:
        """Count a cell, and return a line about it."""
        self._done[cell] = figures["seconds"]
        each = sum(self._done.values()) / sum(self._steps[one] for one in self._done)
        left = each * sum(steps for one, steps in self._steps.items() if one not in self._done) / self._jobs
        return (
            f"[{len(self._done)}/{len(self._steps)}] {cell.name}: visual {figures['visual_accuracy']:.3f}, right "
            f"{figures['exact_match']:.3f} · {figures['seconds']:.1f} s · about {duration(left)} left"
        )


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def run(
    cells: Sequence[Cell], settings: Settings, folder: Path, models: dict[str, Path], *, jobs: int, done: Done
) -> None:
    """Make what the cells need, then train and examine each; `done` is told of every one at once.

    The results do not depend on `jobs`: a cell's training reads nothing that another one changes.
    """
    workshop = Workshop(settings, folder, models)
    needs = list(dict.fromkeys(need for cell in cells for need in workshop.needs(cell)))
    progress = Progress(cells, settings, jobs)
    setup = (settings, folder, models)
    if jobs == 1:
        _begin(*setup)
        for number, need in enumerate(needs, 1):
            _say(number, len(needs), need, _timed(_make, need))
        for cell in cells:
            figures = _examine(cell)
            done(cell, figures)
            print(progress.line(cell, figures), flush=True)
        return
    # Spawned processes, because torch's threads do not survive a fork.
    with ProcessPoolExecutor(jobs, get_context("spawn"), _begin, setup) as pool:
        try:
            for number, (need, seconds) in enumerate(_completed(pool, _timed_make, needs), 1):
                _say(number, len(needs), need, seconds)
            for cell, figures in _completed(pool, _examine, cells):
                done(cell, figures)
                print(progress.line(cell, figures), flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _completed(
    pool: ProcessPoolExecutor, work: Callable[[Any], Any], items: Sequence[Any]
) -> Iterator[tuple[Any, Any]]:
    running = {pool.submit(work, item): item for item in items}
    return ((running[future], future.result()) for future in as_completed(running))


def _timed(work: Callable[[Need], None], need: Need) -> float:
    started = time.perf_counter()
    work(need)
    return time.perf_counter() - started


def _timed_make(need: Need) -> float:
    return _timed(_make, need)


def _say(number: int, count: int, need: Need, seconds: float) -> None:
    print(f"[{number}/{count}] {need} · {seconds:.1f} s", flush=True)
