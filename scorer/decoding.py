"""Decode Arrow rows of a published file into plain columns: flat numpy arrays with row edges, and lists.

This is the only place that decodes a published column; trainers' readers, statistics and checks all use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from scorer.columns import Column
from scorer.table import OK
from scorer.types import BoolArray, Int64Array

ArrowRows: TypeAlias = pa.Table | pa.RecordBatch


@dataclass(frozen=True, eq=False)
class TokenColumn:
    """A list column of M rows with T values in total; null lists and null values stay visible.

    Attributes:
        array: the Arrow lists.
    """

    array: pa.ListArray

    @cached_property
    def values(self) -> npt.NDArray[Any]:
        """[T], in the column's own dtype: all rows' values, end to end. Null becomes NaN if the dtype has one."""
        return np.asarray(self._flat.to_numpy(zero_copy_only=False))

    @cached_property
    def edges(self) -> Int64Array:
        """int64 [M + 1]: row i has ``values[edges[i] : edges[i + 1]]``, which is empty if its list is null."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])

    @cached_property
    def lengths(self) -> Int64Array:
        """int64 [M]: values of each row; 0 if its list is null."""
        lengths: Int64Array = np.diff(self.array.offsets.to_numpy()).astype(np.int64)
        if self.array.null_count:  # a null list may still have values underneath
            lengths[self.is_null] = 0
        return lengths

    @cached_property
    def owners(self) -> Int64Array:
        """int64 [T]: the row that each value belongs to."""
        return np.repeat(np.arange(len(self.array)), self.lengths)

    @cached_property
    def is_null(self) -> BoolArray:
        """bool [M]: whether the list is null."""
        return _mask(self.array.is_null())

    @property
    def has_null_inside(self) -> BoolArray:
        """bool [M]: whether the list contains a null value."""
        return np.bincount(self.owners[_mask(self._flat.is_null())], minlength=len(self.array)) > 0

    @cached_property
    def _flat(self) -> pa.Array:
        return self.array.flatten()


def token_column(rows: ArrowRows, column: Column) -> TokenColumn:
    """Decode a column with one list per row; wider list types from other writers are narrowed.

    Raises:
        KeyError: there is no such column.
        pyarrow.ArrowInvalid: a value does not fit the column's type.
    """
    array = rows.column(column.name)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    return TokenColumn(array.cast(column.field.type))


def plain_column(rows: ArrowRows, name: str) -> list[Any]:
    """Decode a column with a single value per row. Raises KeyError if there is no such column."""
    values: list[Any] = rows.column(name).to_pylist()
    return values


def scored_rows(rows: ArrowRows) -> ArrowRows:
    """Return the rows whose status is ``ok``, as a copy that keeps none of the others in memory."""
    return rows.filter(pc.fill_null(pc.equal(rows.column("status"), OK), False))


def _mask(values: pa.Array) -> BoolArray:
    return np.asarray(values.to_numpy(zero_copy_only=False), np.bool_)
