"""One pass over the scored rows: which captions contradict their pictures, which need none, which stand there twice.

Three numbers of a row decide, all in nats and made from log-probabilities alone, with no text and no picture read:

- ``lowest_gap``, its most negative token gap: the word that the picture speaks against the most. A caption is listed
  as *contradiction* from −log 2 down, where the picture halves a token's probability at least; most negative first.
- ``mean_absolute_gap``, the amount of its gaps, averaged over its tokens: how much the caption depends on the picture.
  A caption is listed as *language*, which language alone explains, below log 1.25: there the picture changes a token's
  probability by less than a quarter on average; least first.
- the hash of its text: rows that repeat an earlier row's text are listed as *duplicates*, commonest texts first.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from pipelines.output.reader import ScoredBatch, scored_batches
from pipelines.report.quality.duplicates import Duplicates, Found
from pipelines.report.quality.figures import Figures
from scorer.types import BoolArray, Float32Array, Int64Array

FACTOR_TWO: Final = math.log(2)
LITTLE: Final = math.log(1.25)
DEFAULT_TOP: Final = 10_000
"""Rows that are ranked in each list; the counts are of all."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows in the order of what ranks them.

    Attributes:
        count: rows that fall under the kind, of all that were scanned.
        rows, scores: places and scores of the first ones. They may go on behind the kind's last one.
    """

    count: int
    rows: Sequence[tuple[str, int]]
    scores: Sequence[float]

    @property
    def listed(self) -> Sequence[tuple[str, int]]:
        """The first ones, as far as they fall under the kind."""
        return self.rows[: self.count]


@dataclass(frozen=True)
class Findings:
    """What a scan found.

    Attributes:
        rows: scored rows that were looked at.
        contradictions, language: see the module.
        duplicates: as :class:`~pipelines.report.quality.duplicates.Found`; rows by number, which :meth:`place`
            resolves.
        figures: lengths, gaps and weights.
    """

    rows: int
    contradictions: Ranking
    language: Ranking
    duplicates: Found
    figures: Figures
    places: _Places

    def place(self, number: int) -> tuple[str, int]:
        """The shard and the row in it of a row's number."""
        return self.places.find(number)

    def to_dict(self) -> dict[str, Any]:
        """The counts, as plain data."""
        return {
            "rows": self.rows,
            "contradictions": self.contradictions.count,
            "language_only": self.language.count,
            "distinct_texts": self.duplicates.distinct,
            "duplicate_rows": self.duplicates.repeats,
        }


class Scan:
    """Give it every batch, shard by shard, then ask :meth:`findings`, once. A context manager, for its files.

    Args:
        shards: every shard that may come and its number of rows, in the run's order.
        top: rows that each list ranks.
    """

    def __init__(self, shards: Mapping[str, int], top: int = DEFAULT_TOP) -> None:
        self._places = _Places(shards)
        self._top = top
        self._rows = 0
        self._contradictions, self._language = _Top(top), _Top(top)
        self._duplicates = Duplicates()
        self.figures = Figures()

    def __enter__(self) -> Self:
        self._duplicates.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._duplicates.__exit__(kind, error, trace)

    def add(self, batch: ScoredBatch) -> None:
        if len(batch.lengths) == 0:
            return
        gap, first = batch.gap, batch.first
        numbers = self._places.first[batch.shard] + batch.row_index
        # fmin passes over NaN, and is NaN where a whole row is: such a row compares false and is in no list.
        lowest = np.fmin.reduceat(gap, first).astype(np.float64)
        self._contradictions.add(lowest, numbers, lowest <= -FACTOR_TWO, lowest <= -FACTOR_TWO)
        amount = mean_amounts(gap, first)
        self._language.add(amount, numbers, amount < LITTLE, ~np.isnan(amount))
        self._duplicates.add(batch.text_hash, numbers)
        self.figures.add(batch)
        self._rows += len(batch.lengths)

    def findings(self) -> Findings:
        return Findings(
            rows=self._rows,
            contradictions=self._ranking(self._contradictions),
            language=self._ranking(self._language),
            duplicates=self._duplicates.find(self._top),
            figures=self.figures,
            places=self._places,
        )

    def _ranking(self, top: _Top) -> Ranking:
        rows = [self._places.find(int(number)) for number in top.numbers]
        return Ranking(top.count, rows, [float(score) for score in top.scores])


def scan(
    output: str, shards: Iterable[Mapping[str, Any]], top: int = DEFAULT_TOP, limit: int | None = None
) -> Findings:
    """Scan published files.

    Args:
        output: the run's folder: a local path, or a URL that fsspec understands.
        shards: entries of a summary's ``shards``: ``name``, ``rows``, ``ok``.
        top: rows that each list ranks.
        limit: whole shards are read until so many rows have been; None reads all.
    """
    sizes = {shard["name"]: shard["rows"] for shard in shards if shard["ok"]}
    with Scan(sizes, top) as found:
        read = 0
        for name, rows in sizes.items():
            if limit is not None and read and read + rows > limit:
                break
            read += rows
            for batch in scored_batches(output, name):
                found.add(batch)
        return found.findings()


def mean_amounts(gap: Float32Array, first: Int64Array) -> npt.NDArray[np.float64]:
    """float64 [M]: mean of |gap| over each row's defined tokens; NaN where there are none. ``first`` as of a batch."""
    defined = ~np.isnan(gap)
    totals = np.add.reduceat(np.where(defined, np.abs(gap.astype(np.float64)), 0.0), first)
    counts = np.add.reduceat(defined.astype(np.int64), first)
    means: npt.NDArray[np.float64] = np.full(len(first), np.nan)
    np.divide(totals, counts, out=means, where=counts > 0)
    return means


class _Top:
    """The ``size`` smallest scores and their rows, in order; of equal scores the earlier rows."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.count = 0
        self.scores: npt.NDArray[np.float64] = np.zeros(0, np.float64)
        self.numbers: Int64Array = np.zeros(0, np.int64)

    def add(self, scores: npt.NDArray[np.float64], numbers: Int64Array, counted: BoolArray, ranked: BoolArray) -> None:
        self.count += int(counted.sum())
        if len(self.scores) == self._size:
            ranked = ranked & (scores < self.scores[-1])  # rows come in order: equal ones would go behind
        if not ranked.any():
            return
        scores = np.concatenate([self.scores, scores[ranked]])
        numbers = np.concatenate([self.numbers, numbers[ranked]])
        best = np.lexsort((numbers, scores))[: self._size]
        self.scores, self.numbers = scores[best], numbers[best]


class _Places:
    """Rows numbered through all shards, in their order."""

    def __init__(self, shards: Mapping[str, int]) -> None:
        ends = list(accumulate(shards.values(), initial=0))
        self.first = dict(zip(shards, ends[:-1], strict=True))
        self._names = list(shards)
        self._starts = ends[:-1]

    def find(self, number: int) -> tuple[str, int]:
        # A shard without rows shares its start with the next one, which bisect_right passes on to.
        shard = bisect_right(self._starts, number) - 1
        return self._names[shard], number - self._starts[shard]
