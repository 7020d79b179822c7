"""Read Parquet datasets with an image column, and with text columns or a list of messages."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any, Final

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.sources import ReadRow, Shard
from pipelines.sources.column_source import ColumnSource, Named, shard_errors
from pipelines.sources.column_types import is_binary, is_image_struct, is_text, is_unknown
from pipelines.sources.columns import ID_NAMES, Columns, choose
from pipelines.sources.listing import FileInfo, display_path, is_local, open_input
from pipelines.sources.row_groups import Place
from pipelines.sources.rows import own_error
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
_BUFFER: Final = 2**20
"""Bytes of a column read ahead from a disk: a file that stays open must not hold its row group."""
_MAX_CELL: Final = 2**30
"""Bytes of one value, checked before Python objects are made of it: a file of kilobytes may decode to gigabytes."""
_LARGE: Final = {"binary_type": pa.large_binary()} if "binary_type" in signature(pq.ParquetFile).parameters else {}
"""Makes strings and binaries large where the file has no Arrow schema. A file with one needs no option: no row that
Arrow wrote has more than its types hold. Releases of pyarrow before the option cannot do it."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """A limit in bytes, the option that sets it, and the code of a row that exceeds it."""

    size: int
    option: str
    code: FailureCode


class ParquetSource(ColumnSource):
    """See :class:`pipelines.sources.Source`. The shard read last stays open, at its place."""

    def __init__(self, url: str, columns: Columns, **options: Any) -> None:
        super().__init__(url, columns, **options)
        self._places: dict[tuple[str, ...] | None, tuple[Shard, Place]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_places": {}}  # an open file cannot be pickled

    def _look(self) -> tuple[list[Shard], Columns]:
        files = self._list(SUFFIXES)
        fs, _ = open_input(self.url)
        chosen, footer = _first_with_rows(fs, files)
        first = footer.schema.to_arrow_schema()
        schema = self._shown(fs, files, first)
        self._choose(schema, chosen.name)  # what is wrong here need not wait for the other footers

        def look(file: FileInfo) -> tuple[Shard, pa.Schema | None]:
            found = _footer(fs, file)
            shard = Shard(display_path(fs, file.path), file.name, file.size, file.etag, found.num_rows)
            # Building Arrow's schema takes longest here, and most shards of a dataset were written alike.
            is_known = not found.num_rows or _written_alike(found, footer)
            return shard, None if is_known else found.schema.to_arrow_schema().remove_metadata()

        # Footers are dropped once compared, and of equal schemas one is kept: 100,000 would fill a gigabyte.
        alike: list[Named] = []
        schemas = {first.remove_metadata(): alike}
        shards: list[Shard] = []
        with ThreadPoolExecutor(_LOCAL_THREADS if is_local(fs) else _REMOTE_THREADS) as pool:
            batches = [files[i : i + _FILES_TOGETHER] for i in range(0, len(files), _FILES_TOGETHER)]
            for looked in pool.map(lambda batch: [look(file) for file in batch], batches):
                for shard, found in looked:
                    shards.append(shard)
                    if shard.rows:
                        names = alike if found is None else schemas.setdefault(found, [])
                        names.append(Named(shard.name, shard.name))
        return shards, self._settle(chosen.name, schema, {one: names for one, names in schemas.items() if names})

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
        columns = self.columns_of(shard)
        names = columns.names()
        rows: list[ReadRow] = []
        for batch in self._batches(shard, start, stop, names):
            there = [name for name in names if name in batch.schema.names]  # a shard may lack the id
            limits = {name: self._limit(name, columns) for name in there}
            large = {name for name in there if batch.column(name).nbytes > limits[name].size}
            records = [
                {name: _cell(batch, name, i, limits[name] if name in large else None) for name in there}
                for i in range(batch.num_rows)
            ]
            rows += reader.rows(records, start + len(rows))
        return rows

    def _limit(self, name: str, columns: Columns) -> _Limit:
        """Return what one string or one image of a column may have."""
        if name in Columns(text=columns.text, prompt=columns.prompt).names():
            return _Limit(self.max_text_bytes, "max_text_bytes", FailureCode.TEXT_TOO_LONG)
        return _Limit(self.images.max_bytes, "max_image_bytes", FailureCode.IMAGE_TOO_LARGE)

    def table(self, shard: Shard, start: int, stop: int) -> pa.Table:
        schema = self.schema(shard)
        batches = self._batches(shard, start, stop, None)
        return pa.Table.from_batches((_as_stored(batch, schema, shard) for batch in batches), schema=schema)

    def schema(self, shard: Shard) -> pa.Schema:
        with _open(open_input(self.url)[0], shard.path) as file:
            return file.schema_arrow

    def _batches(self, shard: Shard, start: int, stop: int, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        """Yield exactly the rows ``start`` to ``stop`` (exclusive), from the row groups that contain them."""
        left = stop - start
        key = None if columns is None else tuple(columns)
        # Taken out while in use, so that another thread opens its own; put back only if all went well.
        held, place = self._places.pop(key, (None, None))
        with shard_errors(shard):
            if place is None or held != shard:
                fs, _ = open_input(self.url)
                wide = partial(_open, fs, shard.path, _BUFFER, **_LARGE) if _LARGE else None
                place = Place(_open(fs, shard.path, _BUFFER), columns, wide)
            for piece in place.take(start, stop):
                left -= piece.num_rows
                yield piece
        if not left:
            self._places[key] = (shard, place)
        else:
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
        raise ConfigError(
            f"{display_path(fs, file.path)} cannot be read as Parquet: {error}; repair it or leave it out"
        ) from error


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
def _open(fs: fsspec.AbstractFileSystem, path: str, buffer: int = 0, **options: Any) -> Iterator[pq.ParquetFile]:
    if is_local(fs):
        with pq.ParquetFile(path, buffer_size=buffer, **options) as file:
            yield file
    else:
        # Arrow's pre-buffering joins the ranges that it needs; a cache below it would read ahead for nothing.
        with fs.open(path, cache_type="none") as handle, pq.ParquetFile(handle, pre_buffer=True, **options) as file:
            yield file


def _as_stored(batch: pa.RecordBatch, schema: pa.Schema, shard: Shard) -> pa.RecordBatch:
    """Return a batch with the file's own types, if it was read with large ones."""
    if batch.schema.equals(schema):
        return batch
    try:
        return batch.cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowCapacityError) as error:
        raise RunError(
            f"a row of shard {shard.name} has more than 2 GiB in one column ({error}); --layout merged would have to "
            "write it again: split the row, or use --layout sidecar"
        ) from error


def _cell(batch: pa.RecordBatch, column: str, i: int, limit: _Limit | None) -> Any:
    """Return a value as a Python object, or a RowError; ``limit`` is one to check it against first."""
    try:
        if limit is not None:
            _check_size(batch.column(column).slice(i, 1), column, limit)
        return batch.column(column)[i].as_py()
    except UnicodeDecodeError as error:  # Parquet does not promise that a string column is UTF-8
        return RowError(FailureCode.TEXT_INVALID, f"column {column!r} is not valid UTF-8: {error}")
    except Exception as error:  # such as a date that Python has no value for
        return own_error(error, f"reading column {column!r}")


def _check_size(value: pa.Array, column: str, limit: _Limit) -> None:
    """Raise RowError for a value of one row that is too large. A string or an image by ``limit``, a list by the sum."""
    kind = value.type
    if is_text(kind) or is_binary(kind):
        size = _bytes_of(value)
        if size > limit.size:
            problem = f"column {column!r} has {size:,} bytes, more than {limit.option}={limit.size}"
            raise RowError(limit.code, f"{problem}; shorten it or raise the limit")
    elif is_image_struct(kind):
        _check_size(value.field("bytes"), column, limit)
    elif value.nbytes > _MAX_CELL:
        problem = f"column {column!r} has {value.nbytes:,} bytes in one row, more than {_MAX_CELL:,}; split the row"
        raise RowError(FailureCode.ROW_UNREADABLE, problem)


def _bytes_of(value: pa.Array) -> int:
    """Return the bytes of a string or binary of one row."""
    if pa.types.is_dictionary(value.type):
        value = value.dictionary_decode()
    if pa.types.is_string_view(value.type) or pa.types.is_binary_view(value.type):
        value = value.cast(pa.large_string() if pa.types.is_string_view(value.type) else pa.large_binary())
    return int(pc.binary_length(value)[0].as_py() or 0)
