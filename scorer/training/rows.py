"""Rows of a published table as numpy arrays, as the readers return them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scorer import decoding
from scorer.columns import IS_STOP, LOGPROB_TEXT, REQUIRED, WEIGHTS, Column, contrasts_in, of_contrast, optional
from scorer.errors import ConfigError, TableError
from scorer.results import TokenScores
from scorer.table import OK, SCHEMA, TEXT_ONLY, WITH_WEIGHTS, columns_in, read_metadata, shown, text_hash
from scorer.training.row_selection import DROPPED
from scorer.types import Float32Array, Int64Array
from scorer.weighting.dataset_gaps import row_mean
from scorer.weighting.gaps import logprob_gap
from scorer.weights import Method, RawScores, weights_of

Derive = str | Method | Callable[[RawScores], Float32Array]
"""How to derive weights from raw scores at read time: a method by name, a :class:`Method`, or a function."""

DeriveFunction = Callable[[RawScores], Float32Array]

TextLogprobs = Callable[[str, int, TokenScores], Float32Array]
"""(a row's name for messages, its position in its shard, its scores) → the log-probability of each of its tokens by a
text reference, float32 [N], in nats."""

_IDENTITY = ("row_index", "sample_id", "status", "error")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class WeightRow:
    """One row of a published output.

    Attributes:
        shard: name of the published file, the same as the input shard's; ``row_index`` is the position within it.
        sample_id: the dataset's own id, or ``<shard>#<row>``.
        status: ``ok``, ``text_only``, ``dropped``, or the code of the failure; ``error`` is its message.
        scores: token ids, byte spans, turns and raw scores of N tokens; None for a failed or a dropped row. A raw score
            that the output does not have is absent from ``scores.optional``.
        weights: float32 [N]; None for a failed or a dropped row.
    """

    shard: str
    row_index: int
    sample_id: str
    status: str
    error: str | None
    scores: TokenScores | None
    weights: Float32Array | None

    def __repr__(self) -> str:
        if self.weights is None:
            return f"<WeightRow {self.name}, {'' if self.dropped else 'not scored: '}{self.status} ({self.error})>"
        mean = f", mean weight {float(self.weights.mean()):.3g}" if len(self.weights) else ""
        return f"<WeightRow {self.name}, {len(self.weights)} token{'' if len(self.weights) == 1 else 's'}{mean}>"

    @property
    def ok(self) -> bool:
        """Whether the row has weights to train with: it was scored, or it is text without an image."""
        return self.scores is not None

    @property
    def text_only(self) -> bool:
        """Whether the row has no image: each of its weights is 1, and only ``scores.logprob_contrast`` may be known."""
        return self.status == TEXT_ONLY

    @property
    def dropped(self) -> bool:
        """Whether a :class:`scorer.training.row_selection.RowSelection` leaves the row out."""
        return self.status == DROPPED

    @property
    def name(self) -> str:
        """The row as error messages name it."""
        return _name(self.shard, self.row_index, self.sample_id)

    @property
    def no_weights(self) -> str:
        """The sentence that refuses a row without weights."""
        why = f"is {DROPPED}: {self.error}" if self.dropped else f"was not scored: {self.status} ({self.error})"
        return f"{self.name} {why}; leave it out"

    def check_text(self, texts: Sequence[str]) -> None:
        """Refuse texts that are not, byte for byte, those that were scored.

        Args:
            texts: one string per scored turn.

        Raises:
            TableError: they differ, or the row was not scored or is dropped.
        """
        if self.scores is None:
            raise TableError(self.no_weights)
        actual = text_hash(texts)
        if actual != self.scores.text_hash:
            shown = " | ".join(texts)
            raise TableError(
                f"{self.name}: the text {shown[:80]!r} has hash {actual}, but the text that was scored has hash "
                f"{self.scores.text_hash}; score the changed dataset again, or read it as it was"
            )

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Any],
        method: Derive | None = None,
        shard: str = "?",
        *,
        contrast: str | None = None,
        min_gap: float | None = None,
        mean: float | None = 1.0,
    ) -> WeightRow:
        """Build a row from its columns as another reader returns them (``datasets``, pandas, polars, DuckDB, pyarrow).

        In the merged layout, a column of the dataset may have the name of an optional one of ours. Such a column is
        ours only if it has one value per token, of its type.

        Args:
            columns: maps column names to values; lists may be lists or arrays.
            method: derives the weights from the raw scores; None for the weights that the run stored.
            shard: names the row in error messages.
            contrast: the further contrast whose scores the method reads; None for the run's first.
            min_gap, mean: those of :class:`Rows`, or None; for the dataset's, take ``min_gap`` and ``mean_weight`` of
                :class:`scorer.training.PublishedWeights`.

        Raises:
            TableError: a column that every output has is absent, its list differs in length from ``token_ids``, or the
                row has no such further contrast; the message says which.
            ConfigError: no method has this name, a contrast is given without a method, or the mean is not above 0.
        """
        check_contrast(contrast, method)
        mean = 1.0 if mean is None else mean
        if not 0 < mean < float("inf"):
            raise ConfigError(f"mean is {mean!r}; a mean to divide by must be finite and above 0")
        missing = [name for name in SCHEMA.names if name not in columns]
        if missing:
            raise TableError(
                f"a row has no columns {', '.join(missing)}; it has {shown(list(columns))}: read the Parquet files of "
                "a scoring run, with all columns that the run wrote"
            )
        index = columns["row_index"]
        identity = (shard, int(index), str(columns["sample_id"]), str(columns["status"]), columns["error"])
        if identity[3] not in WITH_WEIGHTS:
            return cls(*identity, None, None)
        lists = [column for column in REQUIRED if column.per_token]
        arrays = {column.name: np.array(columns[column.name], dtype=column.dtype) for column in lists}
        count = len(arrays["token_ids"])
        for name, values in arrays.items():
            if values.shape != (count,):
                raise TableError(
                    f"row {identity[1]} of {shard} has {values.size} {name} for {count} token_ids; read the Parquet "
                    "files of a scoring run as they are"
                )
        further = {
            column.name: own
            for column in optional(columns)
            if (own := _per_token(columns[column.name], column, count)) is not None
        }
        arrays |= {column.name: further[column.name] for column in optional(further)}
        return _row(identity, arrays, columns["text_hash"], as_function(method), contrast, min_gap=min_gap, mean=mean)

    def to_record(self) -> dict[str, Any]:
        """Return spans and weights as plain data, to store beside the text; :meth:`from_record` reads it.

        Raises:
            TableError: the row was not scored or is dropped.
        """
        if self.scores is None or self.weights is None:
            raise TableError(self.no_weights)
        return {
            "starts": self.scores.token_starts.tolist(),
            "ends": self.scores.token_ends.tolist(),
            "turns": self.scores.token_turns.tolist(),
            "weights": short_floats(self.weights),
            **({IS_STOP: self.scores.is_stop.tolist()} if IS_STOP in self.scores.optional else {}),
            "text_hash": self.scores.text_hash,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any], sample_id: str = "?", shard: str = "?") -> WeightRow:
        """Rebuild a row from :meth:`to_record`. Token ids are -1 and raw scores NaN, as a record does not store them.

        Raises:
            TableError: a key is absent, or its list differs in length from the others.
        """
        names = ("starts", "ends", "turns", "weights", "text_hash")
        lengths = {name: len(record[name]) for name in (*names[:-1], IS_STOP) if name in record}
        if len(set(lengths.values())) != 1 or any(name not in record for name in names):
            raise TableError(
                f"the weights of sample {sample_id!r} have {shown(list(record))}, lists of {lengths} elements; give "
                f"{', '.join(names)}, all lists of one length, as tokensight export writes them"
            )
        count = lengths["weights"]
        held = {"token_ids": [-1] * count, **{f"token_{name}": record[name] for name in names[:-1]}}
        arrays = {
            column.name: np.full(count, np.nan, column.dtype)
            if column.kind == "raw"
            else np.array(held[column.name], column.dtype)
            for column in REQUIRED
            if column.per_token
        }
        if IS_STOP in record:  # records of outputs without stop tokens have no such list
            arrays[IS_STOP] = np.array(record[IS_STOP], np.bool_)
        return _row((shard, -1, sample_id, OK, None), arrays, record["text_hash"], None)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ScoredRow(WeightRow):
    """A row that was scored, or is text-only: its scores and weights are never None."""

    scores: TokenScores
    weights: Float32Array


class Rows:
    """The rows of one Arrow table, each built on access from columns that are decoded once.

    Args:
        table: a published file's columns, all or some of its rows.
        shard: name of the published file.
        derive: derives the weights from the raw scores; None for the weights that the run stored.
        contrast: the contrast whose scores ``derive`` reads; None for the run's first.
        text: gives the column :data:`scorer.columns.LOGPROB_TEXT` of every row; None for rows without it.
        min_gap: the smallest mean gap, in nats, of a row that is not dropped; None drops none.
        mean: what weights are divided by, but for those of text-only rows.

    Raises:
        TableError: a column that every output has is absent, or lists of a row differ in length, or the run has no such
            contrast.
    """

    def __init__(
        self,
        table: decoding.ArrowRows,
        shard: str,
        derive: DeriveFunction | None = None,
        contrast: str | None = None,
        text: TextLogprobs | None = None,
        min_gap: float | None = None,
        mean: float = 1.0,
    ) -> None:
        self._shard, self._derive, self._text = shard, derive, text
        self._min_gap, self._mean = min_gap, mean
        self._contrast = _further_contrast(table.schema, shard, contrast)
        lists = [column for column in columns_in(table.schema, shard) if column.per_token]
        self._identities = [decoding.plain_column(table, name) for name in _IDENTITY]
        self._hashes = decoding.plain_column(table, "text_hash")
        decoded = {column.name: decoding.token_column(table, column) for column in lists}
        self._edges = decoded["token_ids"].edges
        self._values = {name: column.values for name, column in decoded.items()}
        for name, column in decoded.items():
            if not np.array_equal(column.edges, self._edges):
                self._refuse(name, column.lengths)

    def __len__(self) -> int:
        return len(self._hashes)

    def __iter__(self) -> Iterator[WeightRow]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> WeightRow:
        row_index, sample_id, status, error = [values[i] for values in self._identities]
        identity = (self._shard, row_index, sample_id, status, error)
        if status not in WITH_WEIGHTS:
            return WeightRow(*identity, None, None)
        # Copied because Arrow's memory is read-only, and so that changing one row cannot change another.
        start, end = self._edges[i], self._edges[i + 1]
        arrays = {name: values[start:end].copy() for name, values in self._values.items()}
        return _row(
            identity, arrays, self._hashes[i], self._derive, self._contrast, self._text, self._min_gap, self._mean
        )

    def usable_weights(self) -> Float32Array:
        """Return the weights of all tokens of rows with an image, end to end, float32 [T].

        Dropped rows are left out, and rows with a weight that is not finite. A method that weighs each token alone is
        applied to all rows at once, which is many times faster and gives the same weights.
        """
        method = self._derive
        alone = method is None or (isinstance(method, Method) and method.record.alone)
        if not alone or self._text is not None or self._min_gap is not None:
            rows = [row.weights for row in self if row.status == OK and row.weights is not None]
            usable = [weights for weights in rows if np.isfinite(weights).all()]
            return np.concatenate(usable) if usable else np.zeros(0, np.float32)
        scored = np.array([status == OK for status in self._identities[2]], np.bool_)
        owners = np.repeat(np.arange(len(self)), np.diff(self._edges))
        arrays = {name: values[scored[owners]] for name, values in self._values.items()}
        owners = owners[scored[owners]]
        weights = arrays.pop(WEIGHTS)
        if method is not None:
            scores = TokenScores.from_arrays("", "", arrays)
            weights = weights_of(method, scores if self._contrast is None else scores.with_contrast(self._contrast))
        unknown = np.bincount(owners, ~np.isfinite(weights), len(self)) > 0
        return _scaled(weights[~unknown[owners]], self._mean)

    def _refuse(self, name: str, lengths: Int64Array) -> NoReturn:
        i = int(np.argmax(lengths != np.diff(self._edges)))
        raise TableError(
            f"row {self._identities[0][i]} of {self._shard} has {lengths[i]} {name} for "
            f"{self._edges[i + 1] - self._edges[i]} token_ids; the file is damaged: run "
            "tokensight inspect on the output to see what is wrong with it"
        )


def _name(shard: str, row_index: int, sample_id: str) -> str:
    return f"row {row_index} of {shard} (sample {sample_id!r})"


def _row(
    identity: tuple[str, int, str, str, str | None],
    arrays: dict[str, npt.NDArray[Any]],
    digest: str,
    function: DeriveFunction | None,
    contrast: str | None = None,
    text: TextLogprobs | None = None,
    min_gap: float | None = None,
    mean: float = 1.0,
) -> WeightRow:
    weights = arrays.pop(WEIGHTS)
    scores = TokenScores.from_arrays(identity[2], digest, arrays, text_only=identity[3] == TEXT_ONLY)
    if min_gap is not None and not scores.text_only:
        gaps = logprob_gap(scores if contrast is None else scores.with_contrast(contrast))
        gap = row_mean(gaps) if len(gaps) else float("nan")
        if not gap >= min_gap:
            why = f"its mean gap is {gap:.6g} nats, and rows are kept from {min_gap:.6g}"
            return WeightRow(*identity[:3], DROPPED, why, None, None)
    if text is not None:
        joined = text(_name(*identity[:3]), identity[1], scores)
        scores = replace(scores, optional={**scores.optional, LOGPROB_TEXT: joined})
    if function is not None:
        weights = weights_of(function, scores if contrast is None else scores.with_contrast(contrast))
        if weights.shape != scores.token_ids.shape:
            raise TableError(
                f"row {identity[1]} of {identity[0]}: the method returned weights of shape {weights.shape} for "
                f"{len(scores.token_ids)} tokens; it must return one per token"
            )
    return ScoredRow(*identity, scores, weights if scores.text_only else _scaled(weights, mean))


def _scaled(weights: Float32Array, mean: float) -> Float32Array:
    return weights if mean == 1.0 else (weights.astype(np.float64) / mean).astype(np.float32)


def _per_token(value: Any, column: Column, count: int) -> npt.NDArray[Any] | None:
    """Return an optional column's values of one row; None if they are not one per token, of the column's type."""
    try:
        values = np.asarray(value)
    except ValueError:  # lists in it differ in length
        return None
    fits = values.shape == (count,) and values.dtype.kind == column.dtype.kind
    return np.array(values, dtype=column.dtype) if fits else None


def _further_contrast(schema: pa.Schema, shard: str, contrast: str | None) -> str | None:
    """Return the contrast if it is a further one of the run; None for the first. Raises TableError if it is neither."""
    first = read_metadata(schema, shard).get("fingerprint", {}).get("contrast")
    if contrast is None or contrast == first:
        return None
    ours = [column.name for column in columns_in(schema, shard)]  # a dataset may have columns of such names, too
    if not {column.name for column in of_contrast(contrast)} <= set(ours):
        known = ", ".join(str(name) for name in (first, *contrasts_in(ours)))
        raise TableError(
            f"{shard} has no scores for the contrast {contrast!r}; it has {known}: choose one of them, or score the "
            f"dataset again with --contrast …,{contrast}"
        )
    return contrast


def short_floats(values: Float32Array) -> list[float]:
    """Return the shortest decimal numbers that round to the same float32."""
    return [float(str(value)) for value in np.asarray(values, np.float32)]


def check_contrast(contrast: str | None, method: Derive | None) -> None:
    """Raise ConfigError if a contrast is given and no method that would read its scores."""
    if contrast is not None and method is None:
        raise ConfigError(
            f"the contrast {contrast!r} is given without a method; the stored weights are those of the run's first "
            "contrast: name the method that derives them, such as method='cal'"
        )


def as_function(derive: Derive | None) -> DeriveFunction | None:
    """Return the function of a method given by name; functions pass through.

    Raises:
        ConfigError: no method has this name.
    """
    return Method(derive) if isinstance(derive, str) else derive
