"""Read published files: whole for a check, in batches for statistics, in windows for a report's sample.

:mod:`scorer.decoding` decodes their columns.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from pipelines.output.commit import PublishedShard
from pipelines.output.store import Store
from pipelines.output.store.local import LocalStore
from scorer.columns import REQUIRED
from scorer.decoding import plain_column, scored_rows, token_column
from scorer.errors import TableError, explain
from scorer.table import columns_in
from scorer.training.rows import Rows, ScoredRow
from scorer.types import Float32Array, Int32Array, Int64Array

BATCH_ROWS: Final = 1024
WINDOW_ROWS: Final = 64
"""Rows are sampled in windows of this many consecutive rows, which one read covers."""
UNREADABLE: Final = (pa.ArrowException, UnicodeDecodeError)
"""What decoding a damaged Parquet file raises, besides OSError; the second by a text whose bytes are no UTF-8."""
MAX_SHARDS: Final = 64
MAX_ROWS: Final = 20_000
MAX_TOKENS: Final = 200_000

_PER_TOKEN: Final = {column.name: column for column in REQUIRED if column.per_token}
_STATISTICS: Final = (
    "row_index",
    "text_hash",
    "status",
    "token_ids",
    "token_ends",
    "logprob_clean",
    "logprob_contrast",
    "token_weights",
)


# --- whole ---------------------------------------------------------------------------------------------------------


@contextmanager
def opened(store: Store, key: str, *, whole: bool) -> Iterator[IO[bytes]]:
    """Open a published file. If the ``whole`` of a remote one will be read, fetch it once, to a temporary file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if isinstance(store, LocalStore):
        with (Path(store.root) / key).open("rb") as file:
            yield file
        return
    fs, path = url_to_fs(f"{store.root}/{key}")
    if not whole:
        with fs.open(path, "rb") as file:
            yield file
        return
    with tempfile.TemporaryDirectory(prefix="tokensight-") as folder:
        copy = Path(folder) / "object"
        fs.get_file(path, str(copy))
        with copy.open("rb") as file:
            yield file


def is_intact(store: Store, shard: PublishedShard) -> bool:
    """Whether a published file exists and has the bytes that its marker says; reads all of it."""
    try:
        with opened(store, shard.name, whole=True) as file:
            return digest(file) == shard.sha256
    except FileNotFoundError:
        return False


def digest(file: IO[bytes]) -> str:
    """Return the SHA-256 of a file from its start, and leave it there."""
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # typeshed asks for more than IO has
    file.seek(0)
    return found


# --- in batches ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ScoredBatch:
    """M scored rows of one shard with T tokens in all; a row's tokens are consecutive.

    Attributes:
        row_index, lengths: int64 [M]; ``lengths`` ≥ 1 sums to T.
        text_hash: M hexadecimal strings.
        ends: int32 [T], see the column ``token_ends``.
        clean, contrast, weights: float32 [T], the columns of log-probabilities and of weights.
    """

    shard: str
    row_index: Int64Array
    text_hash: list[str]
    lengths: Int64Array
    ends: Int32Array
    clean: Float32Array
    contrast: Float32Array
    weights: Float32Array

    @property
    def first(self) -> Int64Array:
        """int64 [M]: the index of each row's first token, as ``ufunc.reduceat`` takes it."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def gap(self) -> Float32Array:
        """float32 [T], nats: log-probability with the image minus without; NaN where undefined."""
        with np.errstate(invalid="ignore"):
            return self.clean - self.contrast


def scored_batch(shard: str, batch: pa.RecordBatch) -> ScoredBatch:
    """Decode the scored rows of a batch that has the published columns."""
    rows = scored_rows(batch)
    lengths = token_column(rows, _PER_TOKEN["token_ids"]).lengths
    if not lengths.all():  # a damaged file; the row check reports it
        rows, lengths = rows.filter(pa.array(lengths > 0)), lengths[lengths > 0]

    def flat(name: str) -> npt.NDArray[Any]:
        return token_column(rows, _PER_TOKEN[name]).values

    return ScoredBatch(
        shard=shard,
        row_index=rows.column("row_index").to_numpy(),
        text_hash=plain_column(rows, "text_hash"),
        lengths=lengths,
        ends=flat("token_ends"),
        clean=flat("logprob_clean"),
        contrast=flat("logprob_contrast"),
        weights=flat("token_weights"),
    )


def scored_batches(output: str, shard: str) -> Iterator[ScoredBatch]:
    """Yield the scored rows of one published file, in order; ``output`` is a local path or an fsspec URL.

    Raises:
        TableError: the file cannot be read, or a required column is missing.
    """
    path = join(output, shard)
    with _readable(path), fsspec.open(path, "rb") as file, pq.ParquetFile(file) as parquet:
        columns_in(parquet.schema_arrow, path)
        for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=list(_STATISTICS), use_threads=False):
            yield scored_batch(shard, batch)


# --- in windows ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Window:
    """Rows ``start`` to ``stop`` (exclusive) of one shard."""

    shard: str
    start: int
    stop: int


def choose_windows(summary: Mapping[str, Any], seed: int) -> list[Window]:
    """Choose windows of rows in random order, spread over the shards in proportion to their rows.

    A run of up to ``MAX_ROWS`` rows and ``MAX_TOKENS`` tokens (estimated from the mean length) in up to ``MAX_SHARDS``
    shards is covered completely, a larger one by a sample. Deterministic for a summary and a seed.
    """
    rng = np.random.default_rng(seed)
    shards = [shard for shard in summary["shards"] if shard["ok"] > 0]
    if len(shards) > MAX_SHARDS:
        shards = [shards[i] for i in np.sort(rng.choice(len(shards), MAX_SHARDS, replace=False))]
    rows = sum(shard["rows"] for shard in shards)
    mean_tokens = summary["tokens"] / max(1, summary["ok"])
    budget = min(MAX_ROWS, MAX_TOKENS / max(1.0, mean_tokens))
    windows: list[Window] = []
    for shard in shards:
        parts = -(-shard["rows"] // WINDOW_ROWS)
        wanted = parts if rows <= budget else max(1, int(parts * budget / rows))
        for part in rng.choice(parts, wanted, replace=False):
            start = int(part) * WINDOW_ROWS
            windows.append(Window(shard["name"], start, min(start + WINDOW_ROWS, shard["rows"])))
    return [windows[i] for i in rng.permutation(len(windows))]


def read_rows(output: str, windows: Sequence[Window]) -> dict[Window, list[ScoredRow]]:
    """Read the scored rows of every window, in order; failed rows are left out.

    Raises:
        TableError: a file cannot be read, or a required column is missing.
    """
    rows: dict[Window, list[ScoredRow]] = {window: [] for window in windows}
    for shard in sorted({window.shard for window in windows}):
        own = sorted(window for window in windows if window.shard == shard)
        path = join(output, shard)
        with _readable(path), fsspec.open(path, "rb") as file:
            for window, piece in _slices(path, pq.ParquetFile(file), own):
                rows[window] += (row for row in Rows(scored_rows(piece), shard) if isinstance(row, ScoredRow))
    return rows


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Raise what a damaged or missing file raises as TableError."""
    try:
        yield
    except (*UNREADABLE, OSError) as error:
        raise TableError(
            f"{path} cannot be read ({explain(error)}); if it is missing or damaged, run the scoring command again "
            "with --verify to publish it again"
        ) from error


def join(folder: str, name: str) -> str:
    """Return the path or URL of ``name`` inside ``folder``."""
    return f"{folder.rstrip('/')}/{name}"


def _slices(path: str, file: pq.ParquetFile, windows: Sequence[Window]) -> Iterator[tuple[Window, pa.Table]]:
    """Yield the windows' rows with one row group in memory at a time; a window that spans row groups comes in parts."""
    names = [column.name for column in columns_in(file.schema_arrow, path)]
    first = 0
    for group in range(file.num_row_groups):
        stop = first + file.metadata.row_group(group).num_rows
        inside = [window for window in windows if window.start < stop and window.stop > first]
        if inside:
            rows = file.read_row_group(group, columns=names)
            for window in inside:
                start, end = max(window.start, first), min(window.stop, stop)
                yield window, rows.slice(start - first, end - start)
        first = stop
