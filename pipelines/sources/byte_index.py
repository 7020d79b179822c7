"""Index the rows of a file in a format without an index. One pass builds it; each unit carries the part it needs.

A row may occupy several runs of bytes (the members of a WebDataset sample need not be adjacent), while neighbouring
rows together nearly always occupy one. A unit's part still tells its rows apart, since they are read in pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from pipelines.sources.account import Reason
from scorer.types import Int64Array

Run = tuple[int, int]
"""Half-open byte range: the first byte, and the one after the last."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The bytes of rows ``start`` to ``stop`` (exclusive) and of no others, in the file's order.

    Attributes:
        damaged_at: the byte at which the file becomes unreadable, if these rows reach it: the last row then represents
            everything that is missing.
    """

    start: int
    stop: int
    runs: tuple[Run, ...]
    damaged_at: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ByteIndex:
    """The byte ranges of every row of a file, at about 24 bytes of memory per run.

    Attributes:
        rows: int64 [R], ascending: the row that each run belongs to.
        starts, ends: int64 [R], half-open byte ranges; ascending within a row.
        damaged_at: see :class:`Extent`; if set, one more row follows those of the runs.
        passed_over: parts of the file that belong to no row, by reason.
        first: the number of the first row.
    """

    rows: Int64Array
    starts: Int64Array
    ends: Int64Array
    damaged_at: int | None = None
    passed_over: Mapping[str, Reason] = field(default_factory=dict)
    first: int = 0

    @classmethod
    def build(
        cls,
        runs: Iterable[tuple[int, int, int]],
        damaged_at: int | None = None,
        passed_over: Mapping[str, Reason] | None = None,
    ) -> ByteIndex:
        """Build an index from (row, start, end) in any order; rows are numbered from 0 without gaps."""
        # int64 [R, 3], sorted by row, then by start
        table = np.fromiter((value for run in runs for value in run), dtype=np.int64).reshape(-1, 3)
        table = table[np.lexsort((table[:, 1], table[:, 0]))]
        rows, starts, ends = (np.ascontiguousarray(column) for column in table.T)
        return cls(rows, starts, ends, damaged_at, passed_over or {})

    def __len__(self) -> int:
        return self.stop - self.first

    @property
    def stop(self) -> int:
        """One more than the number of the last row."""
        found = int(self.rows[-1]) + 1 if len(self.rows) else self.first
        return found + (self.damaged_at is not None)

    def part(self, start: int, stop: int) -> IndexPart:
        """Return the part of rows ``start`` to ``stop`` (exclusive), which shares the memory of this index."""
        return IndexPart(self, start, stop)

    def extent(self, start: int, stop: int) -> Extent:
        """Return the bytes of rows ``start`` to ``stop`` (exclusive); adjacent runs are joined.

        Raises:
            ValueError: the index has not all of these rows.
        """
        if not self.first <= start <= stop <= self.stop:
            raise ValueError(f"rows {start} to {stop} are not among rows {self.first} to {self.stop}")
        first, last = np.searchsorted(self.rows, (start, stop))
        order = np.argsort(self.starts[first:last], kind="stable")
        joined: list[Run] = []
        for begin, end in zip(self.starts[first:last][order], self.ends[first:last][order], strict=True):
            if joined and joined[-1][1] == begin:
                joined[-1] = (joined[-1][0], int(end))
            else:
                joined.append((int(begin), int(end)))
        damaged_at = self.damaged_at if stop == self.stop and start < stop else None
        return Extent(start, stop, tuple(joined), damaged_at)

    def copied(self, start: int, stop: int) -> ByteIndex:
        """Return an index of these rows alone."""
        first, last = np.searchsorted(self.rows, (start, stop))
        rows, starts, ends = (array[first:last].copy() for array in (self.rows, self.starts, self.ends))
        damaged_at = self.damaged_at if stop == self.stop and start < stop else None
        return ByteIndex(rows, starts, ends, damaged_at, {}, start)


@dataclass(frozen=True, slots=True, eq=False)
class IndexPart:
    """The part of an index that covers rows ``start`` to ``stop`` (exclusive). Pickled, it holds nothing else."""

    index: ByteIndex
    start: int
    stop: int

    def part(self, start: int, stop: int) -> IndexPart:
        """Return a part of this part."""
        self._check(start, stop)
        return IndexPart(self.index, start, stop)

    def extent(self, start: int, stop: int) -> Extent:
        """See :meth:`ByteIndex.extent`."""
        self._check(start, stop)
        return self.index.extent(start, stop)

    def _check(self, start: int, stop: int) -> None:
        if not self.start <= start <= stop <= self.stop:
            raise ValueError(f"rows {start} to {stop} are not among rows {self.start} to {self.stop}")

    def __reduce__(self) -> tuple[type[IndexPart], tuple[ByteIndex, int, int]]:
        return IndexPart, (self.index.copied(self.start, self.stop), self.start, self.stop)
