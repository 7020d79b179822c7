"""Read Parquet datasets with an image column, and with text columns or a list of messages."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.sources import ReadRow, Shard
from pipelines.sources.column_source import ColumnSource, shard_errors
from pipelines.sources.columns import ID_NAMES, Columns, choose, is_unknown
from pipelines.sources.listing import FileInfo, display_path, is_local, open_input
from scorer.errors import ConfigError, FailureCode, RowError, RunError

log = logging.getLogger(__name__)

SUFFIXES: Final = (".parquet", ".pq", ".parq")
_REMOTE_THREADS: Final = 16
_LOCAL_THREADS: Final = 4
"""Footers on a disk are read at once, and many threads would only wait for the interpreter. A few still help on a
network file system, which also has local paths."""
_FILES_TOGETHER: Final = 16
"""Files given to a thread at a time: a future for each would cost time and memory."""
_LOOKED_AT: Final = 64
"""Shards whose schemas are looked at where the first one leaves doubt."""
_BATCH_ROWS: Final = 64
"""Rows decoded at a time, to bound memory: a row may contain megabytes of image."""


class ParquetSource(ColumnSource):
    """See :class:`pipelines.sources.Source`."""

    def _look(self) -> tuple[list[Shard], Columns]:
        files = self._list(SUFFIXES)
        fs, _ = open_input(self.url)
        chosen, footer = _first_with_rows(fs, files)
        first = footer.schema.to_arrow_schema()
        schema = self._shown(fs, files, first)
        columns = self._choose(schema, chosen.name)

        def look(file: FileInfo) -> Shard:
            found = _footer(fs, file)
            shard = Shard(display_path(fs, file.path), file.name, file.size, file.etag, found.num_rows)
            # Building Arrow's schema takes longest here, and most shards of a dataset were written alike.
            if found.num_rows and not _written_alike(found, footer):
                self._check_shard(columns, (chosen.name, schema), (file.name, found.schema.to_arrow_schema()))
            return shard

        # Footers are dropped once compared: those of 100,000 shards would fill a gigabyte.
        with ThreadPoolExecutor(_LOCAL_THREADS if is_local(fs) else _REMOTE_THREADS) as pool:
            batches = [files[i : i + _FILES_TOGETHER] for i in range(0, len(files), _FILES_TOGETHER)]
            found = pool.map(lambda batch: [look(file) for file in batch], batches)
            return [shard for shards in found for shard in shards], columns

    def _shown(self, fs: fsspec.AbstractFileSystem, files: Sequence[FileInfo], first: pa.Schema) -> pa.Schema:
        """Return a shard's schema, completed by others where it leaves doubt: null types, and the absence of an id."""
        fields = {field.name: field for field in first}
        try:
            columns = choose(first, self._asked, "", needs_contrast=self._contrast_images).columns
            if columns.id is not None and not any(is_unknown(fields[name].type) for name in columns.names()):
                return first
        except ConfigError as error:
            log.debug("the first shard leaves doubt: %s", error)
        if len(fields) != len(first):
            return first

        def look(file: FileInfo) -> pa.Schema | None:
            found = _footer(fs, file)
            return found.schema.to_arrow_schema() if found.num_rows else None

        with ThreadPoolExecutor(_LOCAL_THREADS if is_local(fs) else _REMOTE_THREADS) as pool:
            for schema in pool.map(look, files[:_LOOKED_AT]):
                for field in schema or ():
                    known = fields.get(field.name)
                    is_id = known is None and (field.name == self._asked.id or field.name.lower() in ID_NAMES)
                    if is_id or (known is not None and is_unknown(known.type)):
                        fields[field.name] = field
        return pa.schema(list(fields.values()))

    def read(self, shard: Shard, start: int, stop: int) -> list[ReadRow]:
        reader = self._reader(shard)
        names = self.columns_of(shard).names()
        rows: list[ReadRow] = []
        for batch in self._batches(shard, start, stop, names):
            there = [name for name in names if name in batch.schema.names]  # a shard may lack the id
            records = [{name: _cell(batch, name, i) for name in there} for i in range(batch.num_rows)]
            rows += reader.rows(records, start + len(rows))
        return rows

    def table(self, shard: Shard, start: int, stop: int) -> pa.Table:
        return pa.Table.from_batches(self._batches(shard, start, stop, None), schema=self.schema(shard))

    def schema(self, shard: Shard) -> pa.Schema:
        with _open(open_input(self.url)[0], shard.path) as file:
            return file.schema_arrow

    def _batches(self, shard: Shard, start: int, stop: int, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        """Yield exactly the rows ``start`` to ``stop`` (exclusive), from the row groups that contain them."""
        left = stop - start
        with shard_errors(shard), _open(open_input(self.url)[0], shard.path) as file:
            groups, skip = _row_groups(file.metadata, start, stop)
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False):
                if skip >= batch.num_rows:
                    skip -= batch.num_rows
                    continue
                piece = batch.slice(skip, left)
                skip, left = 0, left - piece.num_rows
                yield piece
                if left == 0:
                    return
        if left:
            raise RunError(
                f"shard {shard.name} ends {left} rows before row {stop}; it was changed during the run. Run the same "
                "command again"
            )


def _first_with_rows(fs: fsspec.AbstractFileSystem, files: Sequence[FileInfo]) -> tuple[FileInfo, pq.FileMetaData]:
    """Return the first file that has rows, and its footer; the first of all if none has any."""
    first: tuple[FileInfo, pq.FileMetaData] | None = None
    for file in files:
        footer = _footer(fs, file)
        if footer.num_rows:
            return file, footer
        first = first or (file, footer)
    assert first is not None
    return first


def _footer(fs: fsspec.AbstractFileSystem, file: FileInfo) -> pq.FileMetaData:
    try:
        with _open(fs, file.path) as parquet:
            return parquet.metadata
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{file.path} cannot be read as Parquet: {error}; repair it or leave it out") from error


def _written_alike(footer: pq.FileMetaData, other: pq.FileMetaData) -> bool:
    """Whether two files have the same Parquet schema and the same metadata, which includes Arrow's schema.

    Afterwards ``footer`` may also contain the other's row groups. Comparing ``footer.schema`` would be simpler, but a
    footer and its schema refer to each other, and garbage collection would free them too late: 8 kB per shard.
    """
    if footer.metadata != other.metadata:
        return False
    try:
        footer.append_row_groups(other)  # refuses another schema
    except RuntimeError:
        return False
    return True


@contextmanager
def _open(fs: fsspec.AbstractFileSystem, path: str) -> Iterator[pq.ParquetFile]:
    if is_local(fs):
        with pq.ParquetFile(path) as file:
            yield file
    else:
        # Arrow's pre-buffering joins the ranges that it needs; a cache below it would read ahead for nothing.
        with fs.open(path, cache_type="none") as handle, pq.ParquetFile(handle, pre_buffer=True) as file:
            yield file


def _cell(batch: pa.RecordBatch, column: str, i: int) -> Any:
    try:
        return batch.column(column)[i].as_py()
    except UnicodeDecodeError as error:  # Parquet does not promise that a string column is UTF-8
        return RowError(FailureCode.TEXT_INVALID, f"column {column!r} is not valid UTF-8: {error}")


def _row_groups(metadata: Any, start: int, stop: int) -> tuple[list[int], int]:
    """Return the row groups that intersect [start, stop), and how many rows of the first come before ``start``."""
    groups: list[int] = []
    skip = 0
    first = 0
    for i in range(metadata.num_row_groups):
        rows = metadata.row_group(i).num_rows
        if first < stop and start < first + rows:
            if not groups:
                skip = start - first
            groups.append(i)
        first += rows
    return groups, skip
