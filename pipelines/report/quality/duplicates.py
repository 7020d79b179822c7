"""Find texts that several rows share, in bounded memory: 16 bytes per row on disk, one bucket of rows in memory.

A row is identified by the first 64 bits of its text hash. The first eight of these assign it to one of 256 temporary
files, so equal texts end up in the same file. Files are read one by one, in pieces, keeping only (text, number of
copies, first row). Memory holds the distinct texts of one file: about 100 MB for a thousand million distinct captions.
Small datasets never touch the disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any, Final, Self, cast

import numpy as np
import numpy.typing as npt

from scorer.types import Int64Array

BUCKETS: Final = 256
SPOOL_BYTES: Final = 1 << 16
PIECE: Final = 1 << 20
"""Entries read at a time."""

_ENTRY: Final = np.dtype([("key", "<u8"), ("row", "<i8")])
_GROUP: Final = np.dtype([("key", "<u8"), ("copies", "<i8"), ("first", "<i8")])
Entries = npt.NDArray[Any]
"""Records of ``_ENTRY`` or ``_GROUP``."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """A row that repeats the text of an earlier row. ``copies`` rows share it; ``first`` is the earliest."""

    row: int
    first: int
    copies: int


@dataclass(frozen=True, slots=True)
class Found:
    """Number of distinct texts, number of rows that repeat an earlier one, and the repeats of the most common texts."""

    distinct: int
    repeats: int
    largest: Sequence[Repeat]


class Duplicates:
    """Collect every row with :meth:`add`, then call :meth:`find` once. A context manager that deletes its files."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._buckets: list[IO[bytes]] = []
        self._rows = 0

    def __enter__(self) -> Self:
        for _ in range(BUCKETS):
            spooled = self._stack.enter_context(tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES))
            self._buckets.append(cast(IO[bytes], spooled))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, hashes: Sequence[str], rows: Int64Array) -> None:
        """Add rows.

        Args:
            hashes: Hexadecimal text hashes, at least 16 digits each.
            rows: int64 [N], the row numbers, ascending within and across calls.
        """
        if len(rows) == 0:
            return
        entries = np.zeros(len(rows), _ENTRY)
        entries["key"] = np.frombuffer(bytes.fromhex("".join(text[:16] for text in hashes)), ">u8")
        entries["row"] = rows
        buckets = (entries["key"] >> np.uint64(56)).astype(np.int64)
        order = np.argsort(buckets, kind="stable")
        edges = np.searchsorted(buckets[order], np.arange(BUCKETS + 1))
        for bucket in np.unique(buckets):
            self._buckets[bucket].write(entries[order[edges[bucket] : edges[bucket + 1]]].tobytes())
        self._rows += len(rows)

    def find(self, limit: int) -> Found:
        """Find repeats and list at most ``limit``: the most common texts first, in row order within a text."""
        distinct = 0
        top = np.zeros(0, _GROUP)
        for bucket in self._buckets:
            groups = np.zeros(0, _GROUP)
            for entries in _pieces(bucket):
                groups = _merged(groups, entries)
            distinct += len(groups)
            top = np.concatenate([top, groups[groups["copies"] > 1]])
            top = top[np.lexsort((top["first"], -top["copies"]))][:limit]
        return Found(distinct, self._rows - distinct, self._list(top, limit))

    def _list(self, groups: Entries, limit: int) -> list[Repeat]:
        by_key = np.argsort(groups["key"])
        keys = groups["key"][by_key]
        found = np.zeros((0, 2), np.int64)  # (rank of the group, row)
        for bucket in self._buckets if len(keys) else ():
            for entries in _pieces(bucket):
                at = np.minimum(np.searchsorted(keys, entries["key"]), len(keys) - 1)
                rank = by_key[at]
                wanted = (keys[at] == entries["key"]) & (groups["first"][rank] != entries["row"])
                found = np.concatenate([found, np.stack([rank[wanted], entries["row"][wanted]], axis=1)])
                found = found[np.lexsort((found[:, 1], found[:, 0]))][:limit]
        return [Repeat(int(row), int(groups["first"][rank]), int(groups["copies"][rank])) for rank, row in found]


def _pieces(bucket: IO[bytes]) -> Iterator[Entries]:
    bucket.seek(0)
    while data := bucket.read(PIECE * _ENTRY.itemsize):
        yield np.frombuffer(data, _ENTRY)


def _merged(groups: Entries, entries: Entries) -> Entries:
    """Count ``entries``, which are in ascending row order, into ``groups``, keeping the first row of each text."""
    more = np.zeros(len(entries), _GROUP)
    more["key"], more["copies"], more["first"] = entries["key"], 1, entries["row"]
    both = np.concatenate([groups, more])
    both = both[np.argsort(both["key"], kind="stable")]  # stable: the first row of equal keys stays first
    first = np.flatnonzero(np.concatenate([[True], both["key"][1:] != both["key"][:-1]]))
    merged = both[first]
    merged["copies"] = np.add.reduceat(both["copies"], first)
    return merged
