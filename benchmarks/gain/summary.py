"""Summarise results as means over the seeds with 95 % intervals, in tables and a plot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.gain.learning import METHODS, UNIFORM

FIGURES: Final[Mapping[str, str]] = {
    "visual_accuracy": "visual words right",
    "exact_match": "captions right",
    "contradiction": "captions that contradict",
}
# Student's t, two-sided 95 %, by degrees of freedom.
_T: Final = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}

Cells = Mapping[str, Mapping[str, Any]]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % interval, by Student's t; infinite for a single value."""
    if len(values) < 2:
        return values[0], math.inf
    freedom = len(values) - 1
    t = _T.get(freedom, 1.96)
    return statistics.mean(values), t * statistics.stdev(values) / math.sqrt(len(values))


def of(cells: Cells, noise: float, method: str, figure: str) -> dict[int, float]:
    """Return a figure by seed."""
    return {
        cell["seed"]: cell[figure] for cell in cells.values() if cell["noise"] == noise and cell["method"] == method
    }


def gain(cells: Cells, noise: float, method: str, figure: str) -> tuple[float, float]:
    """Return the difference from uniform weights, seed by seed: its mean and half the width of its 95 % interval."""
    theirs, ours = (of(cells, noise, name, figure) for name in (UNIFORM, method))
    return interval([ours[seed] - theirs[seed] for seed in ours if seed in theirs])


def table(cells: Cells) -> str:
    """Return a Markdown table with a row per noise level and method, and the gain over uniform weights in brackets."""
    lines = [f"| noise | weights | {' | '.join(FIGURES.values())} | seeds |", "|---" * (len(FIGURES) + 3) + "|"]
    for noise in sorted({cell["noise"] for cell in cells.values()}):
        for method in METHODS:
            count = len(of(cells, noise, method, "visual_accuracy"))
            if count:
                shown = " | ".join(_cell(cells, noise, method, figure) for figure in FIGURES)
                lines.append(f"| {noise:.0%} | {method} | {shown} | {count} |")
    return "\n".join(lines)


def _cell(cells: Cells, noise: float, method: str, figure: str) -> str:
    mean, half = interval(list(of(cells, noise, method, figure).values()))
    if math.isinf(half):  # one seed has no interval
        return f"{100 * mean:.1f}"
    text = f"{100 * mean:.1f} ± {100 * half:.1f}"
    if method == UNIFORM:
        return text
    difference, spread = gain(cells, noise, method, figure)
    return f"{text} ({100 * difference:+.1f} ± {100 * spread:.1f})"


def weights_table(weights: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return a Markdown table of the mean weight of each kind of word."""
    kinds = ("visual", "filler", "contradictory", "generic")
    lines = [f"\n| noise | weights | {' | '.join(kinds)} |", "|---" * (len(kinds) + 2) + "|"]
    for noise, methods in weights.items():
        for method, means in methods.items():
            shown = " | ".join(f"{means[kind]:.2f}" if kind in means else "" for kind in kinds)
            lines.append(f"| {float(noise):.0%} | {method} | {shown} |")
    return "\n".join(lines)


def plot(cells: Cells, path: Path) -> None:
    """Plot each figure against the noise, with a line per method and bars for the intervals (needs matplotlib)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    noises = sorted({cell["noise"] for cell in cells.values()})
    seeds = max(cell["seed"] for cell in cells.values()) + 1  # methods with fewer are unfinished and left out
    finished = {
        method: [noise for noise in noises if len(of(cells, noise, method, "visual_accuracy")) == seeds]
        for method in METHODS
    }
    methods = [method for method, there in finished.items() if there]
    colours = dict(zip(METHODS, ("#6b7280", "#c2410c", "#f59e0b", "#2563eb", "#059669", "#a8a29e"), strict=True))
    figure, axes = pyplot.subplots(1, len(FIGURES), figsize=(12, 3.6), layout="constrained")
    for axis, (name, title) in zip(axes, FIGURES.items(), strict=True):
        for k, method in enumerate(methods):
            points = [interval(list(of(cells, noise, method, name).values())) for noise in finished[method]]
            # Shift the points sideways so that bars do not overlap.
            places = [100 * noise + 0.5 * (k - len(methods) / 2) for noise in finished[method]]
            axis.errorbar(
                places,
                [100 * mean for mean, _ in points],
                yerr=[100 * half if math.isfinite(half) else 0 for _, half in points],
                label=method,
                color=colours[method],
                linestyle="--" if method in (UNIFORM, "oracle") else "-",
                marker="o",
                markersize=4,
                capsize=2,
            )
        axis.set_title(f"{title}, %", fontsize=11)
        axis.set_xlabel("share of spoilt facts, %")
        axis.set_xticks([100 * noise for noise in noises])
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.25)
    axes[0].legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
