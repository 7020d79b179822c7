"""One pass over the scored rows: which captions contradict their pictures, which need none, which stand there twice.

Three numbers of a row decide, all in nats and made from log-probabilities alone, with no text and no picture read:

- ``lowest_gap``, its most negative token gap: the word that the picture speaks against the most. A caption is listed
  as *contradiction* from −log 2 down, where the picture halves a token's probability at least; most negative first.
- ``strongest_gap``, its largest token gap by amount: how much the picture matters where it matters most. A caption is
  listed as *language* below log 2, where no token is even twice as likely or unlikely; least first.
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

from pipelines.quality.batches import ScoredBatch, scored_batches
from pipelines.quality.duplicates import Duplicates, Found
from pipelines.quality.figures import Figures
from scorer.types import Int64Array

FACTOR_TWO: Final = math.log(2)
DEFAULT_TOP: Final = 10_000
"""Rows that are ranked in each list; the counts are of all."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """``count`` rows that fall under a kind; the first of them in order: their places and what ranks them."""

    count: int
    rows: Sequence[tuple[str, int]]
    scores: Sequence[float]


@dataclass(frozen=True)
class Findings:
    """What a scan found.

    Attributes:
        rows: scored rows that were looked at.
        contradictions, language: see the module.
        duplicates: as :class:`~pipelines.quality.duplicates.Found`; rows by number, which :meth:`place` resolves.
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
        # fmin and fmax pass over NaN, and are NaN where a whole row is: such a row compares false and is not listed.
        lowest = np.fmin.reduceat(gap, first)
        strongest = np.fmax.reduceat(np.abs(gap), first)
        self._contradictions.add(lowest, numbers, lowest <= -FACTOR_TWO)
        self._language.add(strongest, numbers, strongest < FACTOR_TWO)
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


class _Top:
    """The ``size`` smallest scores and their rows, in order; of equal scores the earlier rows."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.count = 0
        self.scores: npt.NDArray[np.float32] = np.zeros(0, np.float32)
        self.numbers: Int64Array = np.zeros(0, np.int64)

    def add(self, scores: npt.NDArray[np.float32], numbers: Int64Array, listed: npt.NDArray[np.bool_]) -> None:
        self.count += int(listed.sum())
        if len(self.scores) == self._size:
            listed = listed & (scores < self.scores[-1])  # rows come in order: equal ones would go behind
        if not listed.any():
            return
        scores = np.concatenate([self.scores, scores[listed]])
        numbers = np.concatenate([self.numbers, numbers[listed]])
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
