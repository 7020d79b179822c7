"""Parse JSON records into a row's values by key, and infer columns from a few of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from pipelines.sources.rows import Record
from scorer.errors import FailureCode, RowError


def parse_record(data: bytes) -> Record:
    """Parse one JSON object. Return a RowError if it is not an object, or contains text that is not valid Unicode."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        problem = f"the record is not valid JSON ({error}); it begins with {data[:40]!r}"
        return RowError(FailureCode.ROW_UNREADABLE, problem)
    if not isinstance(record, dict):
        problem = f"the record is a {type(record).__name__}, {data[:40]!r}; a JSON object is needed"
        return RowError(FailureCode.ROW_UNREADABLE, problem)
    if b"\\ud" in data.lower():  # an escaped surrogate: legal JSON, but not a character unless paired
        try:
            json.dumps(record, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            return RowError(FailureCode.TEXT_INVALID, f"the record contains half a surrogate pair: {error}")
    return record


def infer_schema(records: Iterable[Record]) -> pa.Schema:
    """Infer the columns of records, in order of appearance, just well enough to find the column of each role.

    If records disagree on the type of a key, a list wins, because a single value may be short for a list of one; then
    a struct, then a string. A key that is always null, or whose type suits no role, has the type null, and one that
    was only ever an empty list is a list of null.
    """
    values: dict[str, list[Any]] = {}
    for record in records:
        if isinstance(record, Mapping):
            for name, value in record.items():
                values.setdefault(name, [])
                if value is not None and not isinstance(value, RowError):
                    values[name].append(value)
    return pa.schema([(name, _type(found)) for name, found in values.items()])


def _type(values: list[Any]) -> pa.DataType:
    lists = [value for value in values if isinstance(value, list)]
    if lists:
        single = [value for value in values if not isinstance(value, list)]
        return pa.list_(_type([part for value in lists for part in value if part is not None] + single))
    mappings = [value for value in values if isinstance(value, dict)]
    if mappings:
        keys: dict[str, list[Any]] = {}
        for mapping in mappings:
            for key, value in mapping.items():
                keys.setdefault(key, [])
                if value is not None:
                    keys[key].append(value)
        return pa.struct([(key, _type(found)) for key, found in keys.items()])
    if any(isinstance(value, str) for value in values):
        return pa.string()
    if any(isinstance(value, bytes) for value in values):
        return pa.binary()
    if values and all(type(value) is int for value in values):
        return pa.int64()
    return pa.float64() if any(isinstance(value, float) for value in values) else pa.null()
