"""Scan the scored rows once: which captions contradict their image, which need no image, which are repeated.

Three values of a row decide. They come from the published scores alone; no text or image is read:

- ``lowest_gap``, its most negative token gap in nats, marks the token that the image contradicts most. A row is listed
  as *contradiction* at −log 2 or below, where the image at least halves the probability of a token; most negative
  first.
- ``mean_absolute_gap``, the mean of |gap| over its tokens in nats, measures how much the caption depends on the image.
  A row is listed as *language* (language alone explains it) below log 1.25, where the image changes the probability of
  a token by less than a quarter on average; lowest first.
- its text hash: rows that repeat the text of an earlier row are listed as *duplicates*, most common texts first.
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
"""Number of rows ranked in each list; the counts cover all rows."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows ranked by a score.

    Attributes:
        count: Number of scanned rows that meet the criterion of the list.
        rows, scores: Places and scores of the first rows; they may continue past the last one that meets the criterion.
    """

    count: int
    rows: Sequence[tuple[str, int]]
    scores: Sequence[float]

    @property
    def listed(self) -> Sequence[tuple[str, int]]:
        """The ranked rows that meet the criterion."""
        return self.rows[: self.count]


@dataclass(frozen=True)
class Findings:
    """What a scan found.

    Attributes:
        rows: Number of scored rows that were scanned.
        contradictions, language: See the module docstring.
        duplicates: Repeated texts; :meth:`place` resolves the row numbers in it.
        figures: Distributions of lengths, gaps and weights.
    """

    rows: int
    contradictions: Ranking
    language: Ranking
    duplicates: Found
    figures: Figures
    places: _Places

    def place(self, number: int) -> tuple[str, int]:
        """Return the shard of a row number, and the position of the row in it."""
        return self.places.find(number)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain data."""
        return {
            "rows": self.rows,
            "contradictions": self.contradictions.count,
            "language_only": self.language.count,
            "distinct_texts": self.duplicates.distinct,
            "duplicate_rows": self.duplicates.repeats,
        }


class Scan:
    """Collect every batch with :meth:`add`, shard by shard, then call :meth:`findings` once.

    A context manager that deletes its temporary files.

    Args:
        shards: Every shard that may be added and its number of rows, in the order of the run.
        top: Number of rows to rank in each list.
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
        # fmin skips NaN and is NaN only if the whole row is: such a row compares false and is in no list.
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
        output: Folder of the run: a local path, or a URL that fsspec understands.
        shards: The ``shards`` entries of a summary: ``name``, ``rows``, ``ok``.
        top: Number of rows to rank in each list.
        limit: Maximum number of rows to read, in whole shards and at least one; None reads all.
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
    """Return the mean of |gap| over the defined tokens of each row, in nats: float64 [M], NaN if there are none.

    Args:
        gap: float32 [T], the gaps of all tokens.
        first: int64 [M], the index of the first token of each row.
    """
    defined = ~np.isnan(gap)
    totals = np.add.reduceat(np.where(defined, np.abs(gap.astype(np.float64)), 0.0), first)
    counts = np.add.reduceat(defined.astype(np.int64), first)
    means: npt.NDArray[np.float64] = np.full(len(first), np.nan)
    np.divide(totals, counts, out=means, where=counts > 0)
    return means


class _Top:
    """The ``size`` smallest scores and their rows, in order; ties keep the earlier rows."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.count = 0
        self.scores: npt.NDArray[np.float64] = np.zeros(0, np.float64)
        self.numbers: Int64Array = np.zeros(0, np.int64)

    def add(self, scores: npt.NDArray[np.float64], numbers: Int64Array, counted: BoolArray, ranked: BoolArray) -> None:
        self.count += int(counted.sum())
        if len(self.scores) == self._size:
            ranked = ranked & (scores < self.scores[-1])  # rows arrive in order: ties would rank last
        if not ranked.any():
            return
        scores = np.concatenate([self.scores, scores[ranked]])
        numbers = np.concatenate([self.numbers, numbers[ranked]])
        best = np.lexsort((numbers, scores))[: self._size]
        self.scores, self.numbers = scores[best], numbers[best]


class _Places:
    """Row numbers that count through all shards in order."""

    def __init__(self, shards: Mapping[str, int]) -> None:
        ends = list(accumulate(shards.values(), initial=0))
        self.first = dict(zip(shards, ends[:-1], strict=True))
        self._names = list(shards)
        self._starts = ends[:-1]

    def find(self, number: int) -> tuple[str, int]:
        # A shard without rows shares its start with the next one, and bisect_right selects the latter.
        shard = bisect_right(self._starts, number) - 1
        return self._names[shard], number - self._starts[shard]
