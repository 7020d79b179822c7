"""Compute the statistics that figures are given in: areas under curves, rank correlations, intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and the bounds of its 95 % interval; all three are NaN if there is too little to estimate it from.

    Attributes:
        count: how many independent things (rows, swaps) it is estimated from.
    """

    value: float
    low: float
    high: float
    count: int

    @property
    def known(self) -> bool:
        """Whether there was enough to estimate it from."""
        return math.isfinite(self.value) and math.isfinite(self.low) and math.isfinite(self.high)


def auroc(positive: npt.ArrayLike, negative: npt.ArrayLike) -> float:
    """Return the probability that a positive scores above a negative, counting ties half; NaN if either is empty.

    Mann-Whitney's U over n₊·n₋, by ranks (Hanley and McNeil, 1982).
    """
    high, low = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    if not high.size or not low.size:
        return float("nan")
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, side="left")
    not_above = np.searchsorted(ordered, high, side="right")
    return float((below + not_above).mean() / (2 * low.size))


def rank_correlation(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return Spearman's rank correlation of two arrays [N], ties ranked by their mean; NaN if either is constant."""
    ranks = _ranks(np.asarray(first, dtype=np.float64)), _ranks(np.asarray(second, dtype=np.float64))
    deviations = [each - each.mean() for each in ranks] if len(ranks[0]) else [np.zeros(1), np.zeros(1)]
    spread = math.sqrt(float((deviations[0] ** 2).sum() * (deviations[1] ** 2).sum()))
    return float((deviations[0] * deviations[1]).sum()) / spread if spread else math.nan


def _ranks(values: Numbers) -> Numbers:
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, side="left")
    not_above = np.searchsorted(ordered, values, side="right")
    return (below + not_above + 1) / 2


def bootstrap(
    count: int, figure: Callable[[npt.NDArray[np.int64]], float], *, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Estimate a figure of ``count`` independent things by the percentile bootstrap (Efron and Tibshirani, 1993, 13.3).

    Resamples in which the figure is undefined are left out.

    Args:
        figure: of the things at these positions, int64 [count], which may repeat.
    """
    if not count:
        return Estimate(math.nan, math.nan, math.nan, 0)
    rng = np.random.default_rng(seed)
    drawn = np.array([figure(rng.integers(count, size=count)) for _ in range(resamples)])
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (math.nan, math.nan)
    return Estimate(figure(np.arange(count)), float(low), float(high), count)
