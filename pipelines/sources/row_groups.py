"""Read a Parquet file's rows forwards, in batches bounded by bytes; it stays open between units.

Within a row group, Parquet has no places to start from: to reach a row, all before it are decoded. So the reading place
is kept, and ascending units of a shard decode each row of it once. A unit before the place starts its row group again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

BATCH_ROWS: Final = 64
"""Rows decoded at a time at most: a row may contain megabytes of image."""
BATCH_BYTES: Final = 256 * 2**20
"""Bytes that a batch may decode to, unless a single row has more."""
_REPEATING: Final = frozenset({"PLAIN_DICTIONARY", "RLE_DICTIONARY", "DELTA_BYTE_ARRAY"})
"""Encodings that store once what many rows repeat."""


class Place:
    """A place in an open Parquet file. Not for several threads at a time.

    Args:
        opened: opens the file.
        columns: the columns to read; None means all.
        wide: opens it with large strings and binaries. If a row has more nested bytes than others can hold, the rest of
            its row group is read so, and has these types; None means that such a row ends the reading.
    """

    def __init__(
        self,
        opened: AbstractContextManager[pq.ParquetFile],
        columns: Sequence[str] | None,
        wide: Callable[[], AbstractContextManager[pq.ParquetFile]] | None = None,
    ) -> None:
        self._columns = None if columns is None else list(columns)
        self._file = self._open(opened)
        self._open_wide = wide
        self._wide: pq.ParquetFile | None = None
        metadata = self._file.metadata
        rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._ends = [sum(rows[: i + 1]) for i in range(len(rows))]
        self._group = -1
        self._at = 0  # the row that comes next
        self._held: pa.RecordBatch | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch_rows = BATCH_ROWS
        self._is_wide = False

    def take(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows ``start`` to ``stop`` (exclusive); fewer where the file ends before.

        Raises:
            pyarrow.ArrowException, OSError: the file cannot be read.
        """
        while start < stop:
            group = next((i for i, end in enumerate(self._ends) if start < end), None)
            if group is None:
                return
            if group != self._group or start < self._at:
                self._begin(group, batch_rows(self._file.metadata.row_group(group), self._columns))
            while self._at < start:
                self._at += self._next(start - self._at).num_rows
            piece = self._next(min(stop, self._ends[group]) - start)
            start = self._at = start + piece.num_rows
            yield piece

    def _open(self, opened: AbstractContextManager[pq.ParquetFile]) -> pq.ParquetFile:
        file = opened.__enter__()
        weakref.finalize(self, opened.__exit__, None, None, None)
        return file

    def _begin(self, group: int, rows: int, wide: pq.ParquetFile | None = None) -> None:
        self._group, self._batch_rows, self._held, self._is_wide = group, rows, None, wide is not None
        self._at = self._ends[group - 1] if group else 0
        file = wide or self._file
        self._batches = file.iter_batches(rows, row_groups=[group], columns=self._columns, use_threads=False)

    def _next(self, most: int) -> pa.RecordBatch:
        """Return between 1 and ``most`` of the next rows; the caller moves the place."""
        batch = self._held if self._held is not None else self._decode()
        self._held = batch.slice(most) if batch.num_rows > most else None
        return batch.slice(0, most)

    def _decode(self) -> pa.RecordBatch:
        try:
            return next(self._batches)
        except StopIteration:
            raise OSError(f"row group {self._group} ends before its last row") from None
        except pa.ArrowNotImplementedError:
            # A nested column of more than 2 GiB in one batch: Arrow would need several chunks for it.
            at = self._at
            if self._batch_rows > 1:
                self._begin(self._group, self._batch_rows // 2)
            elif self._open_wide is None or self._is_wide:
                raise
            else:
                self._wide = self._wide or self._open(self._open_wide())
                self._begin(self._group, 1, self._wide)
            while self._at < at:
                self._at += self._next(at - self._at).num_rows
            return self._held_or_decoded()

    def _held_or_decoded(self) -> pa.RecordBatch:
        return self._held if self._held is not None else self._decode()


def batch_rows(group: Any, columns: Sequence[str] | None) -> int:
    """Return how many rows of a row group to decode at a time, from the sizes in its footer.

    A column's mean size is known, and if its encoding repeats values, also about the size of those: one value may be
    all of them, and every row may repeat it.

    Args:
        group: metadata of the row group.
        columns: the columns that are read; None means all.
    """
    per_row = 0.0
    for i in range(group.num_columns):
        column = group.column(i)
        if columns is not None and column.path_in_schema.split(".")[0] not in columns:
            continue
        size = column.total_uncompressed_size / max(1, group.num_rows)
        if not _REPEATING.isdisjoint(column.encodings):
            size = max(size, _repeated(column) * max(1, column.num_values / max(1, group.num_rows)))
        per_row += size
    return int(min(BATCH_ROWS, max(1, BATCH_BYTES // max(1, per_row))))


def _repeated(column: Any) -> int:
    """Return about how many bytes the dictionary has: pages other than it are no smaller than compressed."""
    dictionary, data = column.dictionary_page_offset, column.data_page_offset
    others = 0
    if dictionary is not None and data is not None and 0 < dictionary < data:
        others = max(0, column.total_compressed_size - (data - dictionary))
    return max(0, int(column.total_uncompressed_size) - others)
