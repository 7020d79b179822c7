"""Plot results (needs matplotlib)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gain.cells import FINE_TUNED, SCRATCH
from benchmarks.gain.methods import METHODS, ORACLE, UNIFORM
from benchmarks.gain.results import FIGURES, Interval, Results


def against_noise(document: Mapping[str, Any], main: str, path: Path) -> None:
    """Plot each figure against the noise, with a line per method, bars for the intervals and a row per start."""
    every = {start: Results.select(document, start, main) for start in (SCRATCH, FINE_TUNED)}
    every = {start: results for start, results in every.items() if results.figures}
    figure, grid = _figure(len(every), len(FIGURES))
    for axes, (start, results) in zip(grid, every.items(), strict=True):
        for axis, (name, title) in zip(axes, FIGURES.items(), strict=True):
            for k, method in enumerate(results.methods):
                points = [(noise, results.mean(noise, method, name)) for noise in results.noises]
                there = [(100 * noise, one) for noise, one in points if one is not None]
                # Shift the points sideways so that bars do not overlap.
                shift = 0.5 * (k - len(results.methods) / 2)
                _line(axis, [(x + shift, one) for x, one in there], method)
            axis.set_title(f"{title}, %" if start == SCRATCH else f"{title}, %; {start}", fontsize=11)
            axis.set_xlabel("share of spoilt facts, %")
            axis.set_xticks([100 * noise for noise in results.noises])
    grid[0][0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def against_auroc(document: Mapping[str, Any], main: str, noise: float, path: Path) -> None:
    """Plot the gain in visual words right over uniform weights against the reference's AUROCs, a line per method."""
    references = {name: one["aurocs"] for name, one in document["references"].items() if "aurocs" in one}
    results = {name: Results.select(document, SCRATCH, name, main) for name in references}
    figure, ((left, right),) = _figure(1, 2, height=4.4)
    methods = [method for method in METHODS if METHODS[method].of_reference]
    for axis, kind in ((left, "visual / filler"), (right, "true / contradictory")):
        ordered = sorted(references, key=lambda name: references[name][kind])
        span = references[ordered[-1]][kind] - references[ordered[0]][kind]
        for k, method in enumerate(methods):
            found = {name: results[name].difference(noise, method, UNIFORM, "visual_accuracy") for name in ordered}
            shift = 0.004 * span * (k - len(methods) / 2)  # so that bars do not overlap
            points = [(references[name][kind] + shift, one) for name, one in found.items() if one is not None]
            if points:
                _line(axis, points, method)
        axis.axhline(0, color=METHODS[UNIFORM].colour, linestyle="--", linewidth=1)
        for number, name in enumerate(ordered):
            place = (references[name][kind], 1.0 + 0.05 * (number % 2))
            axis.axvline(place[0], color="#e5e7eb", linewidth=1, zorder=0)
            axis.annotate(name, place, xycoords=("data", "axes fraction"), fontsize=8, ha="center", va="bottom")
        axis.set_xlabel(f"AUROC of the reference's gap, {kind}")
    left.set_ylabel(f"{FIGURES['visual_accuracy']}, points above uniform")
    left.legend(frameon=False, fontsize=8)
    _save(figure, path)


def _figure(rows: int, columns: int, height: float = 3.6) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(rows, columns, figsize=(12, height * rows), layout="constrained", squeeze=False)
    for axis in grid.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.25)
    return figure, grid


def _line(axis: Any, points: list[tuple[float, Interval]], method: str) -> None:
    axis.errorbar(
        [x for x, _ in points],
        [100 * one.mean for _, one in points],
        yerr=[100 * one.half if math.isfinite(one.half) else 0 for _, one in points],
        label=method,
        color=METHODS[method].colour,
        linestyle="--" if method in (UNIFORM, ORACLE) else "-",
        marker="o",
        markersize=4,
        capsize=2,
    )


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(path, dpi=110)
    pyplot.close(figure)
