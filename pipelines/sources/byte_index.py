"""Where the rows of a file without an index of its own lie. Found in one pass; each unit carries its own part of it.

A row may lie in several runs of bytes (the members of a WebDataset sample need not be neighbours), and a unit's rows
together nearly always lie in one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from scorer.types import Int64Array

Run = tuple[int, int]
"""First byte, and the byte behind the last one."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The bytes of rows ``start`` to ``stop`` (exclusive), in the file's order; none of them is another row's.

    Attributes:
        damaged_at: the byte from which on the file makes no sense, if that is among these rows: the last of them then
            stands for whatever is missing.
    """

    start: int
    stop: int
    runs: tuple[Run, ...]
    damaged_at: int | None = None

    def extent(self, start: int, stop: int) -> Self:
        """An extent that holds these rows: this one."""
        if not self.start <= start <= stop <= self.stop:
            raise ValueError(f"rows {start} to {stop} are not among rows {self.start} to {self.stop}")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class ByteIndex:
    """Every row of a file: about 24 bytes of memory each.

    Attributes:
        rows: int64 [R], ascending: the row that each run belongs to.
        starts, ends: int64 [R], half-open byte ranges; ascending within a row.
        damaged_at: see :class:`Extent`; one more row then follows the last run's.
    """

    rows: Int64Array
    starts: Int64Array
    ends: Int64Array
    damaged_at: int | None = None

    @classmethod
    def build(cls, runs: Iterable[tuple[int, int, int]], damaged_at: int | None = None) -> ByteIndex:
        """From (row, start, end) in any order; rows are numbered from 0 without gaps."""
        # int64 [R, 3], by row and then by place
        table = np.fromiter((value for run in runs for value in run), dtype=np.int64).reshape(-1, 3)
        table = table[np.lexsort((table[:, 1], table[:, 0]))]
        rows, starts, ends = (np.ascontiguousarray(column) for column in table.T)
        return cls(rows, starts, ends, damaged_at)

    def __len__(self) -> int:
        found = int(self.rows[-1]) + 1 if len(self.rows) else 0
        return found + (self.damaged_at is not None)

    def extent(self, start: int, stop: int) -> Extent:
        """The bytes of rows ``start`` to ``stop`` (exclusive); neighbouring runs are joined."""
        first, last = np.searchsorted(self.rows, (start, stop))
        order = np.argsort(self.starts[first:last], kind="stable")
        joined: list[Run] = []
        for begin, end in zip(self.starts[first:last][order], self.ends[first:last][order], strict=True):
            if joined and joined[-1][1] == begin:
                joined[-1] = (joined[-1][0], int(end))
            else:
                joined.append((int(begin), int(end)))
        damaged_at = self.damaged_at if stop == len(self) and start < stop else None
        return Extent(start, stop, tuple(joined), damaged_at)
