"""Count distributions over the scores of a run in one pass: lengths exactly, gaps and weights to 0.01."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipelines.output.reader import ScoredBatch
from scorer.types import Float32Array, Int64Array

MAX_LENGTH: Final = 1 << 20
"""Longer texts are counted with this length, which bounds memory; no model reads texts this long."""
STEP: Final = 0.01
LIMIT: Final = 100.0
"""Gaps and weights beyond ± this are counted at the limit; the minimum and maximum stay exact."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Count, mean, extremes and percentiles of some values. Without values, NaN (None in JSON)."""

    count: int
    mean: float
    minimum: float
    p5: float
    median: float
    p95: float
    maximum: float

    def to_dict(self) -> dict[str, Any]:
        return {name: None if value != value else value for name, value in asdict(self).items()}


class Counts:
    """Counts of whole numbers ≥ 0."""

    def __init__(self) -> None:
        self.counts: Int64Array = np.zeros(1, np.int64)

    def add(self, values: npt.NDArray[np.integer[Any]]) -> None:
        found = np.bincount(np.minimum(values, MAX_LENGTH), minlength=len(self.counts))
        found[: len(self.counts)] += self.counts
        self.counts = found

    def spread(self) -> Spread:
        values: npt.NDArray[np.float64] = np.arange(len(self.counts)).astype(np.float64)
        seen = np.flatnonzero(self.counts)
        extremes = (float(seen[0]), float(seen[-1])) if len(seen) else (np.nan, np.nan)
        return _spread(values, self.counts, float(values @ self.counts), *extremes)


class Bins:
    """Counts of real numbers in bins of width :data:`STEP`; non-finite values are ignored."""

    def __init__(self) -> None:
        self._counts: Int64Array = np.zeros(round(2 * LIMIT / STEP) + 1, np.int64)
        self._sum = 0.0
        self._minimum, self._maximum = np.inf, -np.inf

    def add(self, values: Float32Array) -> None:
        finite = values[np.isfinite(values)].astype(np.float64)
        if len(finite) == 0:
            return
        bins = np.rint((np.clip(finite, -LIMIT, LIMIT) + LIMIT) / STEP).astype(np.int64)
        self._counts += np.bincount(bins, minlength=len(self._counts))
        self._sum += float(finite.sum())
        self._minimum = min(self._minimum, float(finite.min()))
        self._maximum = max(self._maximum, float(finite.max()))

    def spread(self) -> Spread:
        middles: npt.NDArray[np.float64] = np.arange(len(self._counts)).astype(np.float64) * STEP - LIMIT
        return _spread(middles, self._counts, self._sum, self._minimum, self._maximum)


class Figures:
    """The distributions of a run, collected by calling :meth:`add` with every batch."""

    def __init__(self) -> None:
        self.tokens, self.bytes = Counts(), Counts()
        self.gaps, self.weights = Bins(), Bins()
        self.halved = self.doubled = 0

    def add(self, batch: ScoredBatch) -> None:
        if len(batch.lengths) == 0:
            return
        gap = batch.gap
        self.tokens.add(batch.lengths)
        # The last byte of the longest turn of a row; for a bare caption, its length in UTF-8 bytes.
        self.bytes.add(np.maximum.reduceat(batch.ends, batch.first))
        self.gaps.add(gap)
        self.weights.add(batch.weights)
        self.doubled += int((gap >= np.log(2)).sum())
        self.halved += int((gap <= -np.log(2)).sum())

    def spreads(self) -> dict[str, Spread]:
        """Return each distribution by name, in display order."""
        return {
            "tokens per row": self.tokens.spread(),
            "bytes per text": self.bytes.spread(),
            "gap in nats": self.gaps.spread(),
            "weight": self.weights.spread(),
        }

    def to_dict(self) -> dict[str, Any]:
        spreads = {name.replace(" ", "_"): spread.to_dict() for name, spread in self.spreads().items()}
        return {**spreads, "tokens_at_least_doubled": self.doubled, "tokens_at_least_halved": self.halved}


def _spread(
    values: npt.NDArray[np.float64], counts: Int64Array, total: float, minimum: float, maximum: float
) -> Spread:
    count = int(counts.sum())
    if count == 0:
        return Spread(0, *[float("nan")] * 6)
    reached = np.cumsum(counts)

    def quantile(share: float) -> float:
        """Return the smallest value that a ``share`` of all values does not exceed."""
        value = float(values[np.searchsorted(reached, share * count)])
        return min(max(round(value, 2), minimum), maximum)

    return Spread(count, total / count, minimum, quantile(0.05), quantile(0.5), quantile(0.95), maximum)
