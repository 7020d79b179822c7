"""Rows of a published table as numpy arrays: what the readers hand out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scorer.errors import TableError
from scorer.table import OK, SCHEMA, SCORE_FIELDS, text_hash
from scorer.types import Float32Array, TokenScores
from scorer.weights import Method, RawScores

Derive = str | Method | Callable[[RawScores], Float32Array]
"""How to derive weights from raw scores at read time: a method by name, a :class:`Method`, or a function."""

DeriveFunction = Callable[[RawScores], Float32Array]

_LISTS = (*SCORE_FIELDS, SCHEMA.field("token_weights"))
_PLAIN = ("sample_id", "row_index", "status", "error", "text_hash")


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

    @property
    def name(self) -> str:
        """The row as error messages name it."""
        return f"row {self.row_index} of {self.shard} (sample {self.sample_id!r})"

    def check_text(self, texts: Sequence[str]) -> None:
        """Refuse texts that are not, byte for byte, those that were scored: one string per assistant turn.

        Raises:
            TableError: they differ, or the row was not scored.
        """
        if self.scores is None:
            raise TableError(f"{self.name} was not scored: {self.status} ({self.error}); leave it out")
        actual = text_hash(texts)
        if actual != self.scores.text_hash:
            shown = " | ".join(texts)
            raise TableError(
                f"{self.name}: the text {shown[:80]!r} has hash {actual}, but the text that was scored has hash "
                f"{self.scores.text_hash}; score the changed dataset again, or read it as it was"
            )

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any], method: Derive | None = None, shard: str = "?") -> WeightRow:
        """A row as other readers of Parquet give it: a mapping of column to value, lists as lists or arrays.

        For rows of ``datasets``, pandas, polars, DuckDB and pyarrow. ``method`` derives the weights anew; ``shard``
        only names the row in messages.

        Raises:
            TableError: a column is absent; its message says which.
        """
        missing = [name for name in SCHEMA.names if name not in columns]
        if missing:
            raise TableError(
                f"a row has no columns {', '.join(missing)}; it has {shown(list(columns))}: read the Parquet files of "
                "a scoring run, with all columns that the run wrote"
            )
        index = columns["row_index"]
        identity = (shard, int(index), str(columns["sample_id"]), str(columns["status"]), columns["error"])
        if identity[3] != OK:
            return cls(*identity, None, None)
        arrays = {f.name: np.array(columns[f.name], dtype=f.type.value_type.to_pandas_dtype()) for f in _LISTS}
        return _row(identity, arrays, columns["text_hash"], as_function(method))

    def to_record(self) -> dict[str, Any]:
        """Spans and weights as plain data, for formats that hold them beside the text; :meth:`from_record` reads it.

        Raises:
            TableError: the row was not scored.
        """
        if self.scores is None or self.weights is None:
            raise TableError(f"{self.name} was not scored: {self.status} ({self.error}); leave it out")
        return {
            "starts": self.scores.token_starts.tolist(),
            "ends": self.scores.token_ends.tolist(),
            "turns": self.scores.token_turns.tolist(),
            "weights": short_floats(self.weights),
            "text_hash": self.scores.text_hash,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any], sample_id: str = "?", shard: str = "?") -> WeightRow:
        """Back from :meth:`to_record`. Token ids are -1 and raw scores NaN: a record does not hold them.

        Raises:
            TableError: something is absent, or of another length than the rest.
        """
        names = ("starts", "ends", "turns", "weights", "text_hash")
        lengths = {name: len(record[name]) for name in names[:-1] if name in record}
        if len(set(lengths.values())) != 1 or any(name not in record for name in names):
            raise TableError(
                f"the weights of sample {sample_id!r} have {shown(list(record))}, lists of {lengths} elements; give "
                f"{', '.join(names)}, all lists of one length, as tokensight export writes them"
            )
        nothing = np.full(lengths["weights"], np.nan, np.float32)
        scores = TokenScores(
            sample_id=sample_id,
            token_ids=np.full(lengths["weights"], -1, np.int32),
            token_starts=np.array(record["starts"], np.int32),
            token_ends=np.array(record["ends"], np.int32),
            token_turns=np.array(record["turns"], np.int16),
            text_hash=record["text_hash"],
            logit_gap=nothing,
            logprob_clean=nothing,
            logprob_contrast=nothing,
        )
        return cls(shard, -1, sample_id, OK, None, scores, np.array(record["weights"], np.float32))


class Rows:
    """The rows of one Arrow table, each built when it is asked for, from arrays that are cut once.

    Args:
        table: a published file's columns, or some of its rows.
        shard: name of the published file.
        derive: what the weights are derived by; None takes them as the run stored them.
    """

    def __init__(self, table: pa.Table | pa.RecordBatch, shard: str, derive: DeriveFunction | None) -> None:
        self._shard, self._derive = shard, derive
        self._plain = {name: table.column(name).to_pylist() for name in _PLAIN}
        self._lists = {f.name: _ragged(_one_chunk(table.column(f.name)).cast(f.type)) for f in _LISTS}

    def __len__(self) -> int:
        return len(self._plain["status"])

    def __getitem__(self, i: int) -> WeightRow:
        plain = {name: values[i] for name, values in self._plain.items()}
        identity = (self._shard, plain["row_index"], plain["sample_id"], plain["status"], plain["error"])
        if plain["status"] != OK:
            return WeightRow(*identity, None, None)
        # A copy, since Arrow's own memory is read-only, and so that nobody writes into another reader's row.
        arrays = {name: values[edges[i] : edges[i + 1]].copy() for name, (values, edges) in self._lists.items()}
        return _row(identity, arrays, plain["text_hash"], self._derive)


def _row(
    identity: tuple[str, int, str, str, str | None],
    arrays: dict[str, npt.NDArray[Any]],
    digest: str,
    derive: DeriveFunction | None,
) -> WeightRow:
    weights = arrays.pop("token_weights")
    scores = TokenScores(sample_id=identity[2], text_hash=digest, **arrays)
    if derive is not None:
        weights = np.asarray(derive(scores), dtype=np.float32)
        if weights.shape != scores.token_ids.shape:
            raise TableError(
                f"row {identity[1]} of {identity[0]}: the method gave weights of shape {weights.shape} for "
                f"{len(scores.token_ids)} tokens; it must give one per token"
            )
    return WeightRow(*identity, scores, weights)


def short_floats(values: Float32Array) -> list[float]:
    """The shortest decimal numbers that read back as the same float32."""
    return [float(str(value)) for value in np.asarray(values, np.float32)]


def as_function(derive: Derive | None) -> DeriveFunction | None:
    """A method by name as the function that it is. Raises ConfigError for an unknown one."""
    return Method(derive) if isinstance(derive, str) else derive


def _one_chunk(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _ragged(column: pa.ListArray) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """All rows' values end to end, and where each row's begin; a null row has none."""
    return column.values.to_numpy(zero_copy_only=False), column.offsets.to_numpy()


def shown(names: Sequence[str]) -> str:
    """The first of many names, for messages."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "none"
