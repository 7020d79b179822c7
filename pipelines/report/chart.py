"""Compute the bars of a histogram. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from scorer.display.levels import gap_level, signed
from scorer.types import Float32Array

WIDTH: Final = 560
HEIGHT: Final = 200
_LEFT: Final = 54
_RIGHT: Final = 18
_BOTTOM: Final = 26
_TOP: Final = 16
_NICE_WIDTHS: Final = (0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_BINS: Final = 48


@dataclass(frozen=True)
class Bar:
    """One bar in SVG units, with its colour step and label."""

    x: float
    y: float
    width: float
    height: float
    level: int
    label: str


@dataclass(frozen=True)
class Tick:
    """A mark on an axis, in SVG units."""

    at: float
    label: str


@dataclass(frozen=True)
class Histogram:
    """Bars and axes of one histogram; ``below`` and ``above`` count the values beyond the axis, drawn at its ends."""

    bars: Sequence[Bar]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    zero: float
    below: int
    above: int
    low: float
    high: float
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = _RIGHT
    base: int = HEIGHT - _BOTTOM


def histogram(gaps: Float32Array) -> Histogram:
    """Bin the central 99.9 % of the finite values, and zero, into bins of a round width with an edge at zero.

    The count axis is logarithmic, starting at one: uninformative tokens vastly outnumber the others, and contradicted
    ones are so rare that they would not be visible on a linear axis. An empty bin has no bar; a single value has a low
    one.

    Args:
        gaps: float32 [N], with at least one finite value.
    """
    values = gaps[np.isfinite(gaps)].astype(np.float64)
    low, high = np.percentile(values, [0.05, 99.95])
    span = max(float(high), 0.0) - min(float(low), 0.0)
    step = next((width for width in _NICE_WIDTHS if span / width <= _BINS), span / _BINS)
    first = math.floor(min(low, 0.0) / step)
    last = max(first + 1, math.ceil(max(high, step) / step))
    edges = np.arange(first, last + 1) * step
    inside = np.clip(values, edges[0], np.nextafter(edges[-1], -np.inf))  # the tails join the outer bins
    counts, _ = np.histogram(inside, edges)
    return Histogram(
        bars=_bars(edges, counts, step),
        x_ticks=_x_ticks(float(edges[0]), float(edges[-1])),
        y_ticks=_y_ticks(int(counts.max())),
        zero=_x(0.0, edges),
        below=int((values < edges[0]).sum()),
        above=int((values > edges[-1]).sum()),
        low=float(edges[0]),
        high=float(edges[-1]),
    )


def count_of(tokens: int) -> str:
    """Return ``1 token`` or ``2,345 tokens``."""
    return f"{tokens:,} token{'' if tokens == 1 else 's'}"


def _bars(edges: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], step: float) -> list[Bar]:
    bars = []
    digits = 2 if step < 0.1 else 1
    for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
        if count == 0:
            continue
        x, y = _x(float(left), edges), _y(int(count), int(counts.max()))
        bars.append(
            Bar(
                x=round(x, 2),
                y=y,
                width=round(_x(float(right), edges) - x, 2),
                height=round(HEIGHT - _BOTTOM - y, 2),
                level=gap_level(float(left + right) / 2),
                label=f"{signed(float(left), digits)} to {signed(float(right), digits)}: {count_of(int(count))}",
            )
        )
    return bars


def _x(value: float, edges: npt.NDArray[np.float64]) -> float:
    return float(_LEFT + (WIDTH - _LEFT - _RIGHT) * (value - edges[0]) / (edges[-1] - edges[0]))


def _y(count: int, highest: int) -> float:
    """Return the top of a bar; a count of one is still visible."""
    share = (math.log10(count) + 0.3) / (math.log10(highest) + 0.3)
    return round(HEIGHT - _BOTTOM - (HEIGHT - _BOTTOM - _TOP) * share, 2)


def _x_ticks(low: float, high: float) -> list[Tick]:
    width = next((w for w in _NICE_WIDTHS if (high - low) / w <= 9), high - low)
    edges = np.array([low, high])
    numbers = range(math.ceil(low / width - 1e-9), math.floor(high / width + 1e-9) + 1)
    digits = 0 if width >= 1 else 1 if width in (0.1, 0.2, 0.5) else 2
    return [Tick(round(_x(i * width, edges), 2), signed(i * width, digits)) for i in numbers]


def _y_ticks(highest: int) -> list[Tick]:
    return [Tick(_y(10**p, highest), f"{10**p:,}") for p in range(int(math.log10(highest)) + 1)]
