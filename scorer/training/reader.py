"""Read published weights as numpy arrays: numpy, pyarrow and fsspec, nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from scorer.errors import TableError
from scorer.table import FORMAT_VERSION, OK, SCHEMA, SCORE_FIELDS, read_metadata, text_hash
from scorer.types import Float32Array, TokenScores
from scorer.weights import Method, RawScores

SUCCESS: Final = "_SUCCESS"
"""Written last into an output: the summary of the finished run, as JSON."""

PLAIN: Final = ("sample_id", "row_index", "status", "error", "text_hash")

Derive = str | Method | Callable[[RawScores], Float32Array]
"""How to derive weights from raw scores at read time: a method by name, a :class:`Method`, or a function."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightRow:
    """One row of a published output.

    Attributes:
        shard: name of the published file, that of the input shard; ``row_index`` is the position within it.
        sample_id: the dataset's own id, or ``<shard>#<row>``.
        status: ``ok``, or the code of the failure; ``error`` is its message.
        scores: token ids, byte spans, turns and raw scores, N of each; None for a failed row.
        weights: float32 [N]; None for a failed row.
    """

    shard: str
    row_index: int
    sample_id: str
    status: str
    error: str | None
    scores: TokenScores | None
    weights: Float32Array | None

    @property
    def ok(self) -> bool:
        return self.scores is not None

    def check_text(self, texts: Sequence[str]) -> None:
        """Refuse texts that are not, byte for byte, those that were scored: one string per assistant turn.

        Raises:
            TableError: they differ, or the row was not scored.
        """
        where = f"row {self.row_index} of {self.shard} (sample {self.sample_id!r})"
        if self.scores is None:
            raise TableError(f"{where} was not scored: {self.status} ({self.error}); leave it out")
        actual = text_hash(texts)
        if actual != self.scores.text_hash:
            shown = " | ".join(texts)
            raise TableError(
                f"{where}: the text {shown[:80]!r} has hash {actual}, but the text that was scored has hash "
                f"{self.scores.text_hash}; score the changed dataset again, or read it as it was"
            )


@dataclass(frozen=True)
class PublishedWeights:
    """A published output, or a part of it. Iterating yields every row, shard by shard; nothing is kept in memory.

    Attributes:
        root: folder of the output, local path or URL.
        shards: names of the published files, in the run's order.
        summary: what ``_SUCCESS`` says; empty for an unfinished run.
    """

    root: str
    shards: tuple[str, ...]
    summary: Mapping[str, Any]
    derive: Callable[[RawScores], Float32Array] | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[WeightRow]:
        for name in self.shards:
            yield from self.shard(name)

    def shard(self, name: str) -> Iterator[WeightRow]:
        """The rows of one published file, in order.

        Raises:
            TableError: there is no such file, or it is not the file that the run published.
        """
        if name not in self.shards:
            raise TableError(f"{self.root} has no shard {name!r}; it has {_shown(self.shards)}")
        for batch in self._batches(name):
            yield from _rows(name, batch, self.derive)

    def _batches(self, name: str) -> Iterator[pa.RecordBatch]:
        fs, root = url_to_fs(self.root, **self.storage_options)
        path = f"{root.rstrip('/')}/{name}"
        try:
            with fs.open(path, "rb") as file:
                parquet = pq.ParquetFile(file)
                self._check(name, parquet)
                yield from parquet.iter_batches(batch_size=1024, columns=SCHEMA.names)
        except FileNotFoundError as error:
            raise TableError(f"{path} is gone, though the run published it; run the job again to restore it") from error
        except pa.ArrowInvalid as error:
            raise TableError(f"{path} is not a readable Parquet file ({error}); run the job again") from error

    def _check(self, name: str, parquet: pq.ParquetFile) -> None:
        path, schema = f"{self.root.rstrip('/')}/{name}", parquet.schema_arrow
        missing = [column for column in SCHEMA.names if column not in schema.names]
        if missing:
            raise TableError(
                f"{path} has no columns {', '.join(missing)}; it has {_shown(schema.names)}: give the output of a "
                "scoring run"
            )
        version = read_metadata(schema).get("format_version", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise TableError(
                f"{path} has format version {version}; this release reads version {FORMAT_VERSION}: install a newer one"
            )
        rows = {shard["name"]: shard["rows"] for shard in self.summary.get("shards", [])}.get(name)
        if rows is not None and rows != parquet.metadata.num_rows:
            raise TableError(
                f"{path} has {parquet.metadata.num_rows} rows, but the run published {rows}; it was replaced: run the "
                "job again into an empty output"
            )


def read_weights(
    path: str | os.PathLike[str],
    *,
    method: Derive | None = None,
    allow_unfinished: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> PublishedWeights:
    """Open a published output; iterate over the result to read rows.

    Args:
        path: the output folder, a folder or a file inside it; local, or any URL that fsspec opens.
        method: derive the weights from the raw scores by this; None takes them as the run stored them.
        allow_unfinished: read what is published so far where there is no ``_SUCCESS``, and single files that were
            taken out of their output. Rows of shards that are not published yet are simply absent.
        storage_options: passed to fsspec (credentials, endpoint).

    Raises:
        TableError: there is no output at ``path``, or it is unfinished.
        ConfigError: an unknown method.
    """
    options = dict(storage_options or {})
    fs, plain = url_to_fs(os.fspath(path), **options)
    plain = plain.rstrip("/")
    if not fs.exists(plain):
        raise TableError(f"there is nothing at {path}; give the output of a scoring run")
    derive = Method(method) if isinstance(method, str) else method
    found = _finished_run(fs, plain)
    if found is None and not allow_unfinished:
        raise TableError(
            f"{path} does not belong to a finished run: no {SUCCESS} that names it was found there or above; let the "
            "run finish, or pass allow_unfinished=True to read what is published so far"
        )
    root, shards, summary = found or _unfinished_run(fs, plain)
    if not shards:
        raise TableError(f"{path} holds no published shard; give the output of a scoring run")
    local = "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)
    return PublishedWeights(root if local else fs.unstrip_protocol(root), shards, summary, derive, options)


Run = tuple[str, tuple[str, ...], Mapping[str, Any]]


def _finished_run(fs: Any, path: str) -> Run | None:
    """The nearest folder at or above ``path`` whose ``_SUCCESS`` names files at or under ``path``."""
    folder, inside = path, ""
    while folder:
        summary = _summary(fs, f"{folder}/{SUCCESS}")
        if summary is not None:
            names = tuple(shard["name"] for shard in summary["shards"])
            below = tuple(name for name in names if not inside or f"{name}/".startswith(f"{inside}/"))
            if below or not inside:
                return folder, below, summary
        folder, _, last = folder.rpartition("/")
        inside = f"{last}/{inside}".rstrip("/")
    return None


def _summary(fs: Any, path: str) -> Mapping[str, Any] | None:
    """The summary of a run; None where the file is absent or another program's (Spark's is empty)."""
    try:
        summary = json.loads(fs.cat_file(path))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return summary if isinstance(summary, dict) and isinstance(summary.get("shards"), list) else None


def _unfinished_run(fs: Any, path: str) -> Run:
    """Every published file there is: no part of its path starts with an underscore or a dot."""
    if fs.isfile(path):
        folder, _, name = path.rpartition("/")
        return folder, (name,), {}
    names = sorted(str(found)[len(path) + 1 :] for found in fs.find(path))
    hidden = ("_", ".")
    published = [
        name for name in names if name.endswith(".parquet") and not any(p.startswith(hidden) for p in name.split("/"))
    ]
    return path, tuple(published), {}


def _rows(shard: str, batch: pa.RecordBatch, derive: Callable[[RawScores], Float32Array] | None) -> Iterator[WeightRow]:
    plain = {
        name: batch.column(name).to_pylist() for name in ("sample_id", "row_index", "status", "error", "text_hash")
    }
    lists = {f.name: _ragged(batch.column(f.name).cast(f.type)) for f in (*SCORE_FIELDS, SCHEMA.field("token_weights"))}
    for i, status in enumerate(plain["status"]):
        identity = (shard, plain["row_index"][i], plain["sample_id"][i], status, plain["error"][i])
        if status != OK:
            yield WeightRow(*identity, None, None)
            continue
        arrays = {name: rows[i] for name, rows in lists.items()}
        weights = arrays.pop("token_weights")
        scores = TokenScores(sample_id=identity[2], text_hash=plain["text_hash"][i], **arrays)
        if derive is not None:
            weights = np.asarray(derive(scores), dtype=np.float32)
            if weights.shape != scores.token_ids.shape:
                raise TableError(
                    f"row {identity[1]} of {shard}: the method gave weights of shape {weights.shape} for "
                    f"{len(scores.token_ids)} tokens; it must give one per token"
                )
        yield WeightRow(*identity, scores, weights)


def _ragged(column: pa.ListArray) -> list[npt.NDArray[Any]]:
    """One array per row; empty where the row is null. A copy, since Arrow's own memory is read-only."""
    values, edges = column.values.to_numpy(zero_copy_only=False).copy(), column.offsets.to_numpy()
    return [values[edges[i] : edges[i + 1]] for i in range(len(column))]


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "none"
