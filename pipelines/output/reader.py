"""What a report reads: the run's summary, and a bounded, seeded sample of its published rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scorer import table
from scorer.errors import TableError
from scorer.types import Float32Array, TokenScores

WINDOW_ROWS: Final = 64
"""Rows are sampled in runs of this many: neighbours cost one read together."""
MAX_SHARDS: Final = 64
MAX_ROWS: Final = 20_000
MAX_TOKENS: Final = 200_000

_LISTS: Final = (*(field.name for field in table.SCORE_FIELDS), "token_weights")
_COLUMNS: Final = ("sample_id", "row_index", "text_hash", "status", *_LISTS)


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: ``_SUCCESS`` and ``_run.json``, as plain data."""

    summary: Mapping[str, Any]
    fingerprint: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class ScoredRow:
    """One scored row of a published shard; ``weights`` is float32 [N], beside the N tokens of ``scores``."""

    shard: str
    row_index: int
    scores: TokenScores
    weights: Float32Array


@dataclass(frozen=True, order=True)
class Window:
    """Rows ``start`` to ``stop`` (exclusive) of one shard."""

    shard: str
    start: int
    stop: int


def read_run(output: str) -> FinishedRun:
    """Raises TableError where ``output`` is not the folder of a finished run."""
    return FinishedRun(_read_json(output, "_SUCCESS"), _read_json(output, "_run.json"))


def choose_windows(summary: Mapping[str, Any], seed: int) -> list[Window]:
    """Windows of rows in random order, spread over the shards in proportion to their rows.

    All of a run of up to ``MAX_ROWS`` rows and ``MAX_TOKENS`` tokens (judged by the mean length) in up to
    ``MAX_SHARDS`` shards, a sample of a larger one. Deterministic for a summary and a seed.
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
    """The scored rows of every window, in order; failed rows are left out."""
    rows: dict[Window, list[ScoredRow]] = {window: [] for window in windows}
    for shard in sorted({window.shard for window in windows}):
        own = sorted(window for window in windows if window.shard == shard)
        with fsspec.open(join(output, shard), "rb") as file:
            for window, piece in _slices(pq.ParquetFile(file), own):
                rows[window] += _scored(shard, piece)
    return rows


def join(folder: str, name: str) -> str:
    """The path or URL of ``name`` inside ``folder``."""
    return f"{folder.rstrip('/')}/{name}"


def _slices(file: pq.ParquetFile, windows: Sequence[Window]) -> Iterator[tuple[Window, pa.Table]]:
    """The windows' rows, one row group in memory at a time; a window that spans row groups comes in parts."""
    first = 0
    for group in range(file.num_row_groups):
        stop = first + file.metadata.row_group(group).num_rows
        inside = [window for window in windows if window.start < stop and window.stop > first]
        if inside:
            rows = file.read_row_group(group, columns=list(_COLUMNS))
            for window in inside:
                start, end = max(window.start, first), min(window.stop, stop)
                yield window, rows.slice(start - first, end - start)
        first = stop


def _scored(shard: str, rows: pa.Table) -> Iterator[ScoredRow]:
    # Filtering copies: without it, the few rows that are kept would keep their whole row group in memory.
    rows = rows.filter(pc.equal(rows.column("status"), table.OK))
    lengths = pc.list_value_length(rows.column("token_ids")).to_numpy()
    edges = np.cumsum(lengths)[:-1]
    lists = {name: _split(rows.column(name), edges) for name in _LISTS}
    columns = {name: rows.column(name).to_pylist() for name in ("sample_id", "row_index", "text_hash")}
    for i in range(rows.num_rows):
        arrays = {name: arrays[i] for name, arrays in lists.items()}
        weights = arrays.pop("token_weights")
        scores = TokenScores(sample_id=columns["sample_id"][i], text_hash=columns["text_hash"][i], **arrays)
        yield ScoredRow(shard, columns["row_index"][i], scores, weights)


def _split(column: pa.ChunkedArray, edges: npt.NDArray[np.int64]) -> list[npt.NDArray[Any]]:
    """A list column as one array per row; ``edges`` are the ends of all rows but the last."""
    return np.split(pc.list_flatten(column).to_numpy(), edges)


def _read_json(output: str, name: str) -> dict[str, Any]:
    path = join(output, name)
    try:
        with fsspec.open(path, "rb") as file:
            document = json.load(file)
    except FileNotFoundError as error:
        raise TableError(f"{path} does not exist: a report needs a finished run; run the job on this output") from error
    except ValueError as error:
        raise TableError(f"{path} is not JSON ({error}); it is written by the job, restore it or run again") from error
    if not isinstance(document, dict):
        raise TableError(f"{path} holds a {type(document).__name__}, not an object; restore it or run again")
    return document
