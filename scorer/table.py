"""The Parquet schema of the weights and its metadata: the contract between the scoring run and every reader.

Pure pyarrow and numpy: a trainer imports this file with no model, no Ray and no torch installed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from scorer import columns, weights
from scorer.columns import REQUIRED, WEIGHTS, Column
from scorer.errors import TableError
from scorer.results import Result, TokenScores

FORMAT_VERSION: Final = 1
METADATA_KEY: Final = b"tokensight"
"""Key of the JSON document in the Parquet schema's metadata: format version, method, fingerprint."""

OK: Final = "ok"

SCORE_FIELDS: Final = tuple(column.field for column in REQUIRED if column.kind in ("span", "raw"))
"""Token ids, spans and raw scores that every output has, one list element per scored token."""

SCHEMA: Final = pa.schema([column.field for column in REQUIRED])
"""Columns that every published weights file has, in order; :func:`columns_in` tells those of one file."""


def text_hash(texts: Sequence[str]) -> str:
    """Identify the exact scored text of a sample: one string per scored turn.

    BLAKE2b-128 in hex over every turn's UTF-8 bytes, each preceded by its length (8 bytes, little endian), so that
    moving text from one turn to the next changes the hash. A reader refuses a caption whose hash differs.
    """
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def schema_with(metadata: Mapping[str, Any]) -> pa.Schema:
    """The schema carrying ``metadata`` (plain data) as one JSON document under :data:`METADATA_KEY`.

    It has the optional columns that the fingerprint in the metadata names.
    """
    document = {"format_version": FORMAT_VERSION, **metadata}
    schema = pa.schema([column.field for column in _columns_of(metadata)])
    return schema.with_metadata({METADATA_KEY: json.dumps(document, sort_keys=True).encode()})


def read_metadata(schema: pa.Schema) -> dict[str, Any]:
    """The JSON document that :func:`schema_with` wrote; an empty dict for a foreign file."""
    raw = (schema.metadata or {}).get(METADATA_KEY)
    return {} if raw is None else json.loads(raw)


def columns_in(schema: pa.Schema, place: str) -> tuple[Column, ...]:
    """Our columns of a published file, in order: the required ones, and the optional ones of its run that are there.

    Args:
        place: names the file in the message.

    Raises:
        TableError: a required column is absent.
    """
    names = frozenset(schema.names)
    missing = [column.name for column in REQUIRED if column.name not in names]
    if missing:
        raise TableError(
            f"{place} has no columns {', '.join(missing)}; it has {shown(schema.names)}: give the output of a "
            "scoring run"
        )
    return tuple(column for column in _columns_of(read_metadata(schema)) if column.name in names)


def shown(names: Sequence[str]) -> str:
    """The first of many names, for messages."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "none"


def _columns_of(metadata: Mapping[str, Any]) -> tuple[Column, ...]:
    return columns.of_run(metadata.get("fingerprint", {}))


def build_table(
    results: Iterable[Result],
    first_row: int,
    method: weights.Method,
    metadata: Mapping[str, Any],
) -> pa.Table:
    """Rows of consecutive ``row_index`` from ``first_row`` on, one per result, in order.

    Args:
        results: scores or failures; a failure becomes a row with null lists, its code and its message.
        first_row: position of the first result within its shard.
        method: how ``token_weights`` derive from the raw scores.
        metadata: plain data for the schema; method and format version are added.

    Raises:
        TableError: a result whose arrays differ in length, which would shift every token after the gap, or that has
            other optional columns than the fingerprint in the metadata names.
    """
    schema = schema_with({**metadata, "method": method.to_dict()})
    rows = [_row(result, first_row + i, method, schema) for i, result in enumerate(results)]
    return pa.Table.from_pylist(rows, schema=schema)


def _row(result: Result, row_index: int, method: weights.Method, schema: pa.Schema) -> dict[str, Any]:
    row: dict[str, Any] = {"sample_id": result.sample_id, "row_index": row_index}
    if not isinstance(result, TokenScores):
        return {**row, "status": result.code.value, "error": result.message}
    wanted = [column.name for column in columns.optional() if column.name in schema.names]
    if sorted(result.optional) != sorted(wanted):
        raise TableError(
            f"sample {result.sample_id!r} has the optional columns {shown(sorted(result.optional))}, but the "
            f"fingerprint of its run names {shown(wanted)}; have the engine name what it gives, under 'columns'"
        )
    arrays = {**result.arrays, WEIGHTS: method(result)}
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise TableError(f"sample {result.sample_id!r}: arrays differ in length ({lengths}); give one value per token")
    return {**row, **arrays, "text_hash": result.text_hash, "status": OK}
