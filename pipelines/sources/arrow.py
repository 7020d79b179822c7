"""Read Arrow IPC: what ``datasets`` keeps in its cache and writes with ``save_to_disk`` (``.arrow``), and Feather.

``datasets`` writes the stream format, Feather is the file format; which of the two a file has shows in its first bytes,
not in its name. Record batches are read one after the other from a memory map, so only the pages of rows that are asked
for are loaded, and the reader stays open between units. A remote stream is read from the start to the last row.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import fsspec
import pyarrow as pa

from pipelines.sources import ReadRow, Shard
from pipelines.sources.column_source import ColumnSource, Named, shard_errors
from pipelines.sources.columns import Columns
from pipelines.sources.listing import FileInfo, display_path, is_local, open_input, published_names
from pipelines.sources.rows import Record
from scorer.errors import ConfigError, FailureCode, RowError, RunError

NAME: Final = "arrow"
SUFFIXES: Final = (".arrow", ".feather")
CACHE_FILE: Final = re.compile(r"cache-[0-9a-f]{16}.*\.arrow")
"""Base names of what ``datasets`` caches of a step (``map``, ``filter``) beside a dataset; no shards of it."""

_FILE_MARK: Final = b"ARROW1"
_THREADS: Final = 16


class ArrowSource(ColumnSource):
    """See :class:`pipelines.sources.Source`. The scores of a shard are published under its name, as ``.parquet``."""

    _open: _Batches | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_open": None}  # an open file cannot be pickled

    def fingerprint(self) -> dict[str, Any]:
        return {"format": NAME, **super().fingerprint()}

    def _look(self) -> tuple[list[Shard], Columns]:
        files = self._list(SUFFIXES, CACHE_FILE)
        fs, _ = open_input(self.url)
        names = published_names([file.name for file in files], SUFFIXES)

        def look(file: FileInfo) -> tuple[pa.Schema, int]:
            try:
                batches = _Batches(fs, file.path)
                return batches.schema, batches.count()
            except (pa.ArrowException, OSError) as error:
                raise ConfigError(
                    f"{display_path(fs, file.path)} cannot be read as Arrow IPC: {error}; repair it or leave it out"
                ) from error

        with ThreadPoolExecutor(_THREADS) as pool:
            looked = list(pool.map(look, files))
        first = next((i for i, (_, rows) in enumerate(looked) if rows), 0)
        schemas: dict[pa.Schema, list[Named]] = {}
        for file, name, (found, rows) in zip(files, names, looked, strict=True):
            if rows:
                schemas.setdefault(found.remove_metadata(), []).append(Named(file.name, name))
        columns = self._settle(files[first].name, looked[first][0], schemas)
        shards = [
            Shard(display_path(fs, file.path), name, file.size, file.etag, rows)
            for file, name, (_, rows) in zip(files, names, looked, strict=True)
        ]
        return shards, columns

    def read(self, shard: Shard, start: int, stop: int) -> list[ReadRow]:
        names = self.columns_of(shard).names()
        records: list[Record] = []
        for batch in self._slices(shard, start, stop):
            with shard_errors(shard):  # a shard may lack the id
                records += _records(batch.select([name for name in names if name in batch.schema.names]))
        return self._reader(shard).rows(records, start)

    def table(self, shard: Shard, start: int, stop: int) -> pa.Table:
        return pa.Table.from_batches(self._slices(shard, start, stop), schema=self.schema(shard))

    def schema(self, shard: Shard) -> pa.Schema:
        with shard_errors(shard):
            return _Batches(open_input(self.url)[0], shard.path).schema

    def _slices(self, shard: Shard, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield exactly the rows ``start`` to ``stop`` (exclusive), a slice of each batch that contains some."""
        if start == stop:
            return
        if self._open is None or self._open.path != shard.path or start < self._open.at:
            with shard_errors(shard):
                self._open = _Batches(open_input(self.url)[0], shard.path)
        left = stop - start
        with shard_errors(shard):
            for first, batch in self._open.upto(stop):
                if first + batch.num_rows <= start:
                    continue
                piece = batch.slice(max(0, start - first), stop - max(start, first))
                left -= piece.num_rows
                if piece.num_rows:
                    yield piece
        if left:
            raise RunError(
                f"shard {shard.name} ends {left} rows before row {stop}; it was changed during the run. Run the same "
                "command again"
            )


class _Batches:
    """The record batches of an open file, forwards. ``at`` is the first row of the batch that was read last.

    Raises:
        pyarrow.ArrowException, OSError: it is no Arrow IPC, or is damaged.
    """

    def __init__(self, fs: fsspec.AbstractFileSystem, path: str) -> None:
        self.path = path
        self.at = 0
        self._last: pa.RecordBatch | None = None
        if is_local(fs):
            source = pa.memory_map(path)
        else:
            source = pa.PythonFile(fs.open(path, "rb", cache_type="readahead"), "r")
        weakref.finalize(self, source.close)
        is_file = source.read(len(_FILE_MARK)) == _FILE_MARK
        source.seek(0)
        if is_file:
            reader = pa.ipc.open_file(source)
            self._next = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            reader = pa.ipc.open_stream(source)
            self._next = iter(reader)
        self.schema: pa.Schema = reader.schema

    @property
    def _rows(self) -> int:
        return 0 if self._last is None else self._last.num_rows

    def count(self) -> int:
        """Read to the end and return the number of rows."""
        return sum(batch.num_rows for batch in self._next)

    def upto(self, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the batches that begin before row ``stop``, from the one that was read last."""
        if self._last is not None:
            yield self.at, self._last
        while self.at + self._rows < stop:
            batch = next(self._next, None)
            if batch is None:
                return
            self.at, self._last = self.at + self._rows, batch
            yield self.at, batch


def _records(batch: pa.RecordBatch) -> list[Record]:
    """Return the rows of a batch. Offsets and text are checked first: Arrow trusts them, and a file may be damaged."""
    if _is_valid(batch):
        return list(batch.to_pylist())
    return [_record(batch.slice(i, 1)) for i in range(batch.num_rows)]


def _record(row: pa.RecordBatch) -> Record:
    if _is_valid(row):
        return dict(row.to_pylist()[0])
    return RowError(FailureCode.ROW_UNREADABLE, "the row's values are damaged, or its text is not valid UTF-8")


def _is_valid(batch: pa.RecordBatch) -> bool:
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _type(schema: pa.Schema, name: str) -> pa.DataType | None:
    return schema.field(name).type if schema.names.count(name) == 1 else None
