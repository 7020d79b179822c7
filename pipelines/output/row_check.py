"""Check the rows of a published file: each in its place, with lists of equal length, ordered spans, finite values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from scorer.columns import IS_STOP, REQUIRED, WEIGHTS, Column
from scorer.decoding import TokenColumn, token_column
from scorer.errors import FailureCode
from scorer.table import OK, TEXT_ONLY, WITH_WEIGHTS

_IDS: Final = "token_ids"
"""The list that sets the length of the others."""
_STATUSES: Final = (*WITH_WEIGHTS, *(code.value for code in FailureCode))
_HASH: Final = "^[0-9a-f]{32}$"

Mask = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Fault:
    """One kind of fault: what is wrong, the first row that has it, and how many rows have it."""

    what: str
    row: int
    rows: int

    def __str__(self) -> str:
        more = f" (and {self.rows - 1:,} more rows)" if self.rows > 1 else ""
        return f"row {self.row} {self.what}{more}"


@dataclass(slots=True)
class RowCheck:
    """Checks a file's rows batch by batch, in order.

    Attributes:
        columns: the columns that the file must have.
        undefined: those of them that are NaN, or false, in every row; see :func:`scorer.columns.undefined`.
        rows, ok, text_only: how many rows, scored rows and text-only rows were checked so far.
        tokens: how many tokens of scored rows.
        faults: the faults found so far, by kind.
    """

    columns: Sequence[Column] = REQUIRED
    undefined: frozenset[str] = frozenset()
    rows: int = 0
    ok: int = 0
    text_only: int = 0
    tokens: int = 0
    faults: dict[str, Fault] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Check the next rows and return the valid ones."""
        sound = np.ones(batch.num_rows, np.bool_)
        lists = [column for column in self.columns if column.per_token]
        decoded = _decoded(batch, lists)
        for wrong, what in _row_faults(batch, decoded, self.rows):
            self._note(wrong, what)
            sound &= ~wrong
        scored = _true(pc.equal(batch.column("status"), OK))
        alone = _true(pc.equal(batch.column("status"), TEXT_ONLY))
        self.ok += int(scored.sum())
        self.text_only += int(alone.sum())
        self.tokens += int(decoded[_IDS].lengths[scored].sum())
        # Values are compared only in rows whose lists have equal lengths; in others they cannot be matched up.
        for kind, faults in ((scored, partial(_score_faults, undefined=self.undefined)), (alone, _text_only_faults)):
            compared = np.flatnonzero(sound & kind)
            if not len(compared):
                continue
            values = _decoded(batch.take(pa.array(compared)), lists)
            for wrong, what in (*_value_faults(values), *faults(values, lists)):
                whole = np.zeros(batch.num_rows, np.bool_)
                whole[compared[wrong]] = True
                self._note(whole, what)
                sound &= ~whole
        self.rows += batch.num_rows
        return batch.filter(pa.array(sound))

    def _note(self, wrong: Mask, what: str) -> None:
        count = int(wrong.sum())
        if not count:
            return
        fault = self.faults.setdefault(what, Fault(what, self.rows + int(np.argmax(wrong)), 0))
        fault.rows += count


def _decoded(batch: pa.RecordBatch, lists: Sequence[Column]) -> dict[str, TokenColumn]:
    return {column.name: token_column(batch, column) for column in lists}


def _row_faults(batch: pa.RecordBatch, lists: Mapping[str, TokenColumn], first: int) -> Iterator[tuple[Mask, str]]:
    """Yield the rows that have each kind of fault, bool [M]: the faults that show without the tokens' values."""
    places = pa.array(np.arange(first, first + batch.num_rows))
    yield _not(pc.equal(batch.column("row_index"), places)), "has a row_index that is not its place in the file"
    yield _nulls(batch, "sample_id"), "has no sample_id"
    status = batch.column("status")
    yield _not(pc.is_in(status, pa.array(_STATUSES))), "has an unknown status"
    scored = _true(pc.is_in(status, pa.array(WITH_WEIGHTS)))
    error = batch.column("error")
    yield scored & ~_nulls(batch, "error"), "did not fail but has an error"
    yield ~scored & _not(pc.greater(pc.utf8_length(error), 0)), "failed but has no error"
    hashed = _true(pc.match_substring_regex(batch.column("text_hash"), _HASH))
    yield scored & ~hashed, "did not fail but its text_hash is not 32 hexadecimal digits"
    yield ~scored & ~_nulls(batch, "text_hash"), "failed but has a text_hash"
    ids = lists[_IDS]
    yield scored & ~ids.is_null & (ids.lengths == 0), "did not fail but has no token"
    for name, column in lists.items():
        yield scored & column.is_null, f"did not fail but {name} is null"
        yield ~scored & ~column.is_null, f"failed but {name} is not null"
        other = scored & ~column.is_null & (column.lengths != ids.lengths)
        yield other, f"has a different number of {name} than of {_IDS}"
        yield column.has_null_inside, f"has a null inside {name}"


def _value_faults(lists: Mapping[str, TokenColumn]) -> Iterator[tuple[Mask, str]]:
    """Yield the same for the ids and spans of rows whose lists are complete and of equal length: bool [M]."""
    starts, ends = lists["token_starts"].values, lists["token_ends"].values  # int32 [T]
    turns, owner = lists["token_turns"].values, lists[_IDS].owners  # int16 [T], int64 [T]
    among = partial(_among, lists[_IDS])
    yield among(lists[_IDS].values < 0), "has a negative token id"
    yield among((starts < 0) | (ends < starts)), "has a token whose span ends before it starts, or starts below 0"
    follows = owner[1:] == owner[:-1]  # bool [T - 1]: token t + 1 belongs to the same row as token t
    back = np.concatenate([[False], follows & (turns[1:] < turns[:-1])])
    yield among((turns < 0) | back), "has token_turns that do not ascend from 0"
    same_turn = follows & (turns[1:] == turns[:-1])
    overlap = same_turn & (starts[1:] < ends[:-1])
    yield among(np.concatenate([[False], overlap])), "has a token that starts before the one before it ends"
    if IS_STOP in lists:
        stop = lists[IS_STOP].values  # bool [T]
        yield among(stop & (starts < ends)), "has a stop token whose span is not empty"
        yield among(np.concatenate([same_turn & stop[:-1], [False]])), "has a token behind its turn's stop token"


def _score_faults(
    lists: Mapping[str, TokenColumn], columns: Sequence[Column], undefined: frozenset[str]
) -> Iterator[tuple[Mask, str]]:
    """Yield the same for the scores and weights of scored rows."""
    among = partial(_among, lists[_IDS])
    for column in (column for column in columns if column.kind == "raw"):
        values, (low, high) = lists[column.name].values, column.bounds
        if column.name in undefined:
            present, what = (values, "true") if values.dtype == np.bool_ else (~np.isnan(values), "not NaN")
            yield among(present), f"has a {column.name} that is {what}, from a model without images"
            continue
        yield among(~np.isfinite(values)), f"has a {column.name} that is not finite"
        beyond = (values < low) | (values > high)
        yield among(beyond & np.isfinite(values)), f"has a {column.name} that is not from {low:g} to {high:g}"
    weights = lists[WEIGHTS].values
    yield among(~(np.isfinite(weights) & (weights >= 0))), "has a token_weights entry that is negative or not finite"


def _text_only_faults(lists: Mapping[str, TokenColumn], columns: Sequence[Column]) -> Iterator[tuple[Mask, str]]:
    """Yield the same for text-only rows: NaN where an image is needed, and weights of 1."""
    among = partial(_among, lists[_IDS])
    for column in (column for column in columns if column.kind == "raw"):
        name, values = column.name, lists[column.name].values
        if values.dtype == np.bool_:
            yield among(values & column.needs_image), f"is {TEXT_ONLY} but has a {name} that is true"
        elif column.needs_image:
            yield among(~np.isnan(values)), f"is {TEXT_ONLY} but has a {name} that is not NaN"
        else:
            partly = among(np.isnan(values)) & among(~np.isnan(values))
            yield partly | among(np.isinf(values)), f"is {TEXT_ONLY} but its {name} is neither finite nor all NaN"
    yield among(lists[WEIGHTS].values != 1), f"is {TEXT_ONLY} but has a token_weights entry that is not 1"


def _among(ids: TokenColumn, wrong: npt.NDArray[Any]) -> Mask:
    """Return which rows have a token that is ``wrong``: bool [M]."""
    return np.bincount(ids.owners[wrong], minlength=len(ids.lengths)) > 0


def _true(values: pa.Array) -> Mask:
    return np.asarray(pc.fill_null(values, False).to_numpy(zero_copy_only=False), np.bool_)


def _not(values: pa.Array) -> Mask:
    """Negate a mask; null counts as false."""
    return ~_true(values)


def _nulls(batch: pa.RecordBatch, name: str) -> Mask:
    return np.asarray(batch.column(name).is_null().to_numpy(zero_copy_only=False), np.bool_)
