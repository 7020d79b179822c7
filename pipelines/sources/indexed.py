"""Read datasets whose files have no index of their rows: one pass over each file on the driver builds it.

A unit carries the byte ranges of its rows, so a worker reads those and nothing else. Every start of a run costs this
pass, reruns included: a plain file is read once from start to end (of a tar, only the headers), a remote one in ranges.
A compressed file does not allow random access: a worker decompresses it from the start to its last row, only once if
its units ascend, because the file stays open between them.
"""

from __future__ import annotations

import io
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, Protocol, cast

import fsspec
import pyarrow as pa

from pipelines.sources import ReadRow, Shard
from pipelines.sources.account import PassedOver
from pipelines.sources.byte_index import ByteIndex, Extent, Run
from pipelines.sources.column_source import ColumnSource, shard_errors
from pipelines.sources.column_types import is_unknown
from pipelines.sources.columns import Columns
from pipelines.sources.listing import FileInfo, display_path, has_suffix, is_local, open_input, published_names
from pipelines.sources.rows import Record
from scorer.errors import ConfigError, RowError, RunError

_DETECTED_ROWS: Final = 32
"""Rows of the first shard from which the columns are detected."""
_DETECTED_TOGETHER: Final = 1024
"""Most rows that are read at a time where the first ones leave doubt: of a tar, with their images."""
_MOST_DETECTED: Final = 2**14
"""Most rows that are looked at: a column must show in these."""
_BLOCK: Final = 2**20
"""Bytes per request while a remote file is indexed: larger members of a tar are skipped, not read."""
_COMPRESSIONS: Final = {".gz": "gzip", ".zst": "zstd"}
_THREADS: Final = 16


class Format(Protocol):
    """The part of a source that depends on the format. Raises ValueError for a file of another format."""

    @property
    def name(self) -> str: ...

    @property
    def suffixes(self) -> tuple[str, ...]: ...

    def index(self, file: BinaryIO) -> ByteIndex:
        """Index every row. ``file`` may be read once, forwards; ``seek`` works too unless it is compressed."""
        ...

    def records(self, runs: Sequence[bytes], extent: Extent, columns: Columns | None) -> list[Record]:
        """Parse the rows of ``extent`` from the bytes of its runs; ``columns`` are those needed, None means all."""
        ...

    def schema(self, records: Sequence[Record], asked: Columns) -> pa.Schema:
        """Return the columns among which the image, the text and the others are looked for."""
        ...


class IndexedSource(ColumnSource):
    """See :class:`pipelines.sources.Source`. The scores of a shard are published under its name, as ``.parquet``.

    Args:
        format: how to read the files; the other arguments are those of :class:`ColumnSource`.
    """

    def __init__(
        self,
        url: str,
        format: Format,
        columns: Columns,
        *,
        prompt: str,
        contrast_images: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(url, columns, prompt=prompt, contrast_images=contrast_images, **options)
        self.format = format
        self._place: _Forward | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_place": None}  # an open file cannot be pickled

    def fingerprint(self) -> dict[str, Any]:
        return {"format": self.format.name, **super().fingerprint()}

    def _look(self) -> tuple[list[Shard], Columns]:
        files = self._list(self.format.suffixes)
        names = published_names([file.name for file in files], self.format.suffixes)
        with ThreadPoolExecutor(_THREADS) as pool:
            indexes = list(pool.map(self._index, files))
        members = PassedOver()
        for index in indexes:
            members.include(index.passed_over)
        if members.to_dict():
            self._account["members_passed_over"] = members.to_dict()
        fs, _ = open_input(self.url)
        shards = [
            Shard(display_path(fs, file.path), name, file.size, file.etag, len(index), index)
            for file, name, index in zip(files, names, indexes, strict=True)
        ]
        return shards, self._detect(shards)

    def read(self, shard: Shard, start: int, stop: int) -> list[ReadRow]:
        if shard.index is None:
            raise ValueError(f"shard {shard.path} has no index; take it from shards() or from a unit")
        extent = shard.index.extent(start, stop)
        with shard_errors(shard):
            records = self._records(shard, extent, self.columns)
        return self._reader(shard).rows(records, start)

    def table(self, shard: Shard, start: int, stop: int) -> pa.Table:
        raise self._no_table()

    def schema(self, shard: Shard) -> pa.Schema:
        raise self._no_table()

    def _no_table(self) -> ConfigError:
        return ConfigError(
            f"--layout merged keeps the columns of Parquet and Arrow, but {self.url} is {self.format.name}; use "
            "--layout sidecar"
        )

    def _index(self, file: FileInfo) -> ByteIndex:
        fs, _ = open_input(self.url)
        try:
            with _open(fs, file.path) as stream:
                return self.format.index(stream)
        except (ValueError, EOFError, OSError) as error:
            where = display_path(fs, file.path)
            raise ConfigError(
                f"{where} cannot be read as {self.format.name}: {error}; repair it or leave it out"
            ) from error

    def _detect(self, shards: Sequence[Shard]) -> Columns:
        """Find the columns in the first rows; where these leave doubt, in ever more of them."""
        refused: ConfigError | None = None
        columns = self._asked
        records: list[Record] = []
        for shard, found in self._growing(shards):
            records += found
            broken = [record for record in records if isinstance(record, RowError)]
            if len(broken) == len(records):
                refused = refused or ConfigError(
                    f"{shard.path}: none of its first {len(records)} rows can be read as {self.format.name}. The first "
                    f"one: {broken[0].message}. Repair the file, or name its real format with --format"
                )
                continue
            schema = self.format.schema(records, self._asked)
            try:
                columns, refused = self._choose(schema, shard.path), None
            except ConfigError as error:
                refused = error
                continue
            if not any(is_unknown(schema.field(name).type) for name in columns.names()):
                return columns
        if refused is not None:
            raise refused
        return columns

    def _growing(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, list[Record]]]:
        """Yield the first rows, and then more; bytes are emptied, as only their type is looked at."""
        waiting: list[Record] = []
        wanted, seen = _DETECTED_ROWS, 0
        for shard in shards:
            start = 0
            while shard.index is not None and start < shard.rows and seen < _MOST_DETECTED:
                stop = min(start + wanted - len(waiting), shard.rows)
                extent = shard.index.extent(start, stop)
                with shard_errors(shard):
                    records = self._records(shard, extent, None)
                waiting += [_light(record) for record in records]
                start = stop
                if len(waiting) == wanted or seen == 0:
                    yield shard, waiting
                    seen, waiting = seen + len(waiting), []
                    wanted = min(2 * wanted, _DETECTED_TOGETHER, _MOST_DETECTED - seen)
        if waiting:
            yield shard, waiting

    def _records(self, shard: Shard, extent: Extent, columns: Columns | None) -> list[Record]:
        runs = self._read_runs(shard.path, extent.runs)
        records = self.format.records(runs, extent, columns)
        if len(records) != extent.stop - extent.start:
            found = f"{len(records)} rows from row {extent.start} on, where {extent.stop - extent.start} were indexed"
            raise RunError(f"shard {shard.path} has {found}; it was changed during the run. Run the same command again")
        return records

    def _read_runs(self, path: str, runs: Sequence[Run]) -> list[bytes]:
        fs, _ = open_input(self.url)
        if _compression(path) is not None:
            if self._place is None or self._place.path != path or not self._place.reaches(runs):
                self._place = _Forward(fs, path)
            return [self._place.read(*run) for run in runs]
        if not is_local(fs):
            return [bytes(fs.cat_file(path, start=start, end=end)) for start, end in runs]
        found = []
        with open(path, "rb") as file:  # noqa: PTH123, the path comes from fsspec
            for start, end in runs:
                file.seek(start)
                found.append(file.read(end - start))
        return found


def _light(record: Record) -> Record:
    """Return a record without the bytes of its values."""
    if isinstance(record, RowError):
        return record
    return {name: b"" if isinstance(value, bytes) else value for name, value in record.items()}


class _Forward:
    """A compressed file that is read forwards only, and stays open between units."""

    def __init__(self, fs: fsspec.AbstractFileSystem, path: str) -> None:
        self.path = path
        self._at = 0
        opened = _open(fs, path)
        self._stream = opened.__enter__()
        weakref.finalize(self, opened.__exit__, None, None, None)

    def reaches(self, runs: Sequence[Run]) -> bool:
        return not runs or runs[0][0] >= self._at

    def read(self, start: int, end: int) -> bytes:
        while self._at < start:
            passed = len(self._stream.read(min(_BLOCK, start - self._at)))
            if not passed:
                return b""
            self._at += passed
        data = self._stream.read(end - start)
        self._at += len(data)
        return data


@contextmanager
def _open(fs: fsspec.AbstractFileSystem, path: str) -> Iterator[BinaryIO]:
    """Open a file, decompressed and buffered; a remote one is requested block by block."""
    options: dict[str, Any] = {} if is_local(fs) else {"block_size": _BLOCK, "cache_type": "readahead"}
    with fs.open(path, "rb", **options) as raw:
        compression = _compression(path)
        if compression is None:
            yield cast(BinaryIO, raw)
        else:
            with pa.CompressedInputStream(pa.PythonFile(raw, "r"), compression) as stream:
                yield cast(BinaryIO, io.BufferedReader(stream, _BLOCK))


def _compression(path: str) -> str | None:
    return next((name for suffix, name in _COMPRESSIONS.items() if has_suffix(path, [suffix])), None)
