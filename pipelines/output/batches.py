"""Scored rows of a published file as flat numpy arrays, a batch at a time: what statistics are made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scorer import table
from scorer.types import Float32Array, Int32Array, Int64Array

BATCH_ROWS: Final = 1024

_COLUMNS: Final = (
    "row_index",
    "text_hash",
    "status",
    "token_ids",
    "token_ends",
    "logprob_clean",
    "logprob_contrast",
    "token_weights",
)


@dataclass(frozen=True, eq=False)
class ScoredBatch:
    """M scored rows of one shard, T tokens in all; a row's tokens stand together.

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
        """int64 [M]: where each row's tokens begin; what ``ufunc.reduceat`` wants."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def gap(self) -> Float32Array:
        """float32 [T], nats: log-probability with the picture minus without; NaN where undefined."""
        with np.errstate(invalid="ignore"):
            return self.clean - self.contrast


def scored_batch(shard: str, batch: pa.RecordBatch) -> ScoredBatch:
    """The scored rows of a batch that has the published columns."""
    kept = pc.and_(pc.equal(batch.column("status"), table.OK), pc.greater(_lengths(batch), 0))
    rows = batch.filter(pc.fill_null(kept, False))

    def flat(name: str) -> npt.NDArray[Any]:
        return np.asarray(rows.column(name).flatten().to_numpy(zero_copy_only=False))

    return ScoredBatch(
        shard=shard,
        row_index=rows.column("row_index").to_numpy(),
        text_hash=rows.column("text_hash").to_pylist(),
        lengths=_lengths(rows).to_numpy(zero_copy_only=False).astype(np.int64),
        ends=flat("token_ends"),
        clean=flat("logprob_clean"),
        contrast=flat("logprob_contrast"),
        weights=flat("token_weights"),
    )


def scored_batches(output: str, shard: str) -> Iterator[ScoredBatch]:
    """The scored rows of one published file, in order; ``output`` is a local path or a URL that fsspec understands."""
    with fsspec.open(f"{output.rstrip('/')}/{shard}", "rb") as file, pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=list(_COLUMNS), use_threads=False):
            yield scored_batch(shard, batch)


def _lengths(rows: pa.RecordBatch) -> pa.Array:
    return pc.list_value_length(rows.column("token_ids"))
