"""Count a whole dataset's log-probability gaps, so that a method can place one threshold for all rows.

A :class:`Histogram` is a quantile sketch of integer counts over fixed bins. Merging two adds their counts, so the
merged one is the same, bit for bit, in whatever order and groups rows were counted; sketches that keep samples of the
values, such as KLL or t-digest, depend on both. Bins are 1/64 of an octave wide: a threshold, which is always a bin's
edge, is off by at most 1.6 % of its value, or 0.002 nats near zero, and how many values it keeps is known exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scorer.types import Int64Array

_KEPT_BITS: Final = 6
"""Bits of a float's mantissa that tell bins apart: 64 bins an octave."""
_SHIFT: Final = 52 - _KEPT_BITS
_SMALLEST: Final = 2.0**-10
"""Values below this in magnitude share the bin 0."""
_FIRST: Final = int(np.array(_SMALLEST).view(np.int64)) >> _SHIFT


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many of a set of values fall into each bin.

    Attributes:
        counts: bin → how many values, without empty bins, ascending by bin. The bins are numbered in the values' order;
            0 holds those around zero.
    """

    counts: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, values: npt.NDArray[np.floating[Any]]) -> Histogram:
        """Count finite values, [N]. Raise ValueError if one is NaN or infinite."""
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise ValueError(f"{bad} of {len(values)} values are NaN or infinite; only finite ones have a bin")
        bins, counts = np.unique(_bins(values.astype(np.float64)), return_counts=True)
        return cls(dict(zip(bins.tolist(), counts.tolist(), strict=True)))

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(
            {b: self.counts.get(b, 0) + other.counts.get(b, 0) for b in sorted({*self.counts, *other.counts})}
        )

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(self.counts.values())

    def top(self, share: float) -> tuple[float, float]:
        """Return a threshold that the top ``share`` of the values reach, in (0, 1], and the share that do reach it.

        The threshold is the lower edge of the bin that holds the ⌈share · total⌉-th largest value. So the second number
        is at least ``share``, and is exact: compare ``value >= threshold`` in float64.

        Raises:
            ValueError: no values were counted.
        """
        total = self.total
        if not total:
            raise ValueError("no values were counted")
        wanted = math.ceil(Fraction(repr(float(share))) * total)  # a fraction, because 0.07 * 100 exceeds 7
        reached = 0
        for found in reversed(self.counts):
            reached += self.counts[found]
            if reached >= wanted:
                break
        return _lower_edge(found), reached / total

    def to_dict(self) -> dict[str, list[int]]:
        """Return the histogram as plain data: lists of bins and counts."""
        return {"bins": list(self.counts), "counts": list(self.counts.values())}

    @classmethod
    def from_dict(cls, document: Any) -> Histogram:
        """Parse what :meth:`to_dict` returns. Raise ValueError if it is damaged."""
        lists = [document.get(name) if isinstance(document, Mapping) else None for name in ("bins", "counts")]
        if not all(isinstance(found, list) and all(type(value) is int for value in found) for found in lists):
            raise ValueError("a histogram lacks its lists of bins and counts")
        bins, counts = lists
        assert bins is not None and counts is not None
        if len(bins) != len(counts) or bins != sorted(set(bins)) or any(count < 1 for count in counts):
            raise ValueError(f"a histogram's {len(bins)} bins and {len(counts)} counts do not fit together")
        return cls(dict(zip(bins, counts, strict=True)))


@dataclass(frozen=True, slots=True)
class DatasetGaps:
    """The log-probability gaps of a dataset's scored rows with one contrast, in nats.

    Attributes:
        tokens: of every token.
        rows: each row's mean over its tokens (VIG's gain of a sample).
    """

    tokens: Histogram = field(default_factory=Histogram)
    rows: Histogram = field(default_factory=Histogram)

    def __add__(self, other: DatasetGaps) -> DatasetGaps:
        return DatasetGaps(self.tokens + other.tokens, self.rows + other.rows)

    @classmethod
    def of(cls, gaps: npt.NDArray[np.float64], edges: Int64Array) -> DatasetGaps:
        """Count rows.

        Args:
            gaps: float64 [T], all rows' tokens end to end.
            edges: int64 [M + 1]: row i has ``gaps[edges[i] : edges[i + 1]]``. A row without tokens is not counted.

        Raises:
            ValueError: a gap is NaN or infinite.
        """
        means = [row_mean(gaps[start:end]) for start, end in pairwise(edges.tolist()) if end > start]
        return cls(Histogram.of(gaps), Histogram.of(np.array(means, np.float64)))

    def to_dict(self) -> dict[str, Any]:
        """Return the two histograms as plain data."""
        return {"tokens": self.tokens.to_dict(), "rows": self.rows.to_dict()}

    @classmethod
    def from_dict(cls, document: Any) -> DatasetGaps:
        """Parse what :meth:`to_dict` returns. Raise ValueError if it is damaged."""
        if not isinstance(document, Mapping):
            raise ValueError(f"the dataset's gaps are {document!r:.40}, not two histograms")
        return cls(Histogram.from_dict(document.get("tokens")), Histogram.from_dict(document.get("rows")))


def row_mean(gaps: npt.NDArray[np.float64]) -> float:
    """Return a row's mean gap, in nats. Counting and reading share it, so that both see the same number."""
    return math.fsum(gaps.tolist()) / len(gaps)


def _bins(values: npt.NDArray[np.float64]) -> Int64Array:
    magnitudes = np.abs(values).view(np.int64) >> _SHIFT
    numbers = np.maximum(magnitudes - _FIRST + 1, 0)
    return np.asarray(np.where(values < 0, -numbers, numbers), np.int64)


def _lower_edge(number: int) -> float:
    """Return the smallest float64 in a bin."""
    if number > 0:
        return float(np.array((number - 1 + _FIRST) << _SHIFT, np.int64).view(np.float64))
    return math.nextafter(-_lower_edge(1 - number), math.inf)
