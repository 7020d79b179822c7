"""Define the Parquet schema of the weights and its metadata: the contract between a scoring run and every reader.

Needs only pyarrow and numpy: a trainer can import this file without a model, Ray or torch.
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
"""The key of the JSON document in the Parquet schema's metadata, which holds format version, method and fingerprint."""

OK: Final = "ok"
TEXT_ONLY: Final = "text_only"
"""The status of a row without an image, which has tokens, and weights of 1."""
WITH_WEIGHTS: Final = (OK, TEXT_ONLY)
"""The statuses of rows that have lists; every other status is the code of a failure."""

SCORE_FIELDS: Final = tuple(column.field for column in REQUIRED if column.kind in ("span", "raw"))
"""The token ids, spans and raw scores that every output has, one list element per scored token."""

SCHEMA: Final = pa.schema([column.field for column in REQUIRED])
"""The columns that every published weights file has, in order; :func:`columns_in` returns those of one file."""


def text_hash(texts: Sequence[str]) -> str:
    """Return a hash that identifies the exact scored text of a sample, given one string per scored turn.

    The hash is BLAKE2b-128, in hex, over every turn's UTF-8 bytes, each preceded by its length (8 bytes, little
    endian), so moving text from one turn to the next changes it. A reader refuses a caption whose hash differs.
    """
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def schema_with(metadata: Mapping[str, Any]) -> pa.Schema:
    """Return the schema with ``metadata`` (plain data) as one JSON document under :data:`METADATA_KEY`.

    It includes the optional columns that the fingerprint in the metadata names.
    """
    document = {"format_version": FORMAT_VERSION, **metadata}
    schema = pa.schema([column.field for column in _columns_of(metadata)])
    return schema.with_metadata({METADATA_KEY: json.dumps(document, sort_keys=True).encode()})


def read_metadata(schema: pa.Schema, place: str = "the file") -> dict[str, Any]:
    """Return the JSON document that :func:`schema_with` wrote; an empty dict for a file from another program.

    Args:
        place: the file's name, for the message.

    Raises:
        TableError: the document is damaged.
    """
    raw = (schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        return {}
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise _damaged(place, f"they are no JSON ({error})") from error
    if not isinstance(document, dict):
        raise _damaged(place, f"they are {document!r:.40}, not an object")
    for names in (("fingerprint",), ("source",), ("source", "columns")):
        value: Any = document
        for name in names:
            value = value.get(name, {})
            if not isinstance(value, dict):
                raise _damaged(place, f"{'.'.join(names)} is {value!r:.40}, not an object")
    return document


def _damaged(place: str, problem: str) -> TableError:
    key = METADATA_KEY.decode()
    return TableError(f"{place}: the metadata under {key!r} are damaged: {problem}; delete the file and score it again")


def columns_in(schema: pa.Schema, place: str) -> tuple[Column, ...]:
    """Return our columns in a published file, in order: the required ones, and its run's optional ones if present.

    Args:
        place: the file's name, for the message.

    Raises:
        TableError: a required column is missing.
    """
    names = frozenset(schema.names)
    missing = [column.name for column in REQUIRED if column.name not in names]
    if missing:
        raise TableError(
            f"{place} has no columns {', '.join(missing)}; it has {shown(schema.names)}: give the output of a "
            "scoring run"
        )
    return tuple(column for column in _columns_of(read_metadata(schema, place)) if column.name in names)


def shown(names: Sequence[str]) -> str:
    """Join names for a message, naming at most eight."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "none"


def _columns_of(metadata: Mapping[str, Any]) -> tuple[Column, ...]:
    return columns.of_run(metadata.get("fingerprint", {}))


def build_table(
    results: Iterable[Result],
    first_row: int,
    method: weights.Method,
    metadata: Mapping[str, Any],
) -> pa.Table:
    """Build one row per result, in order, with consecutive ``row_index`` starting at ``first_row``.

    Args:
        results: scores or failures; a failure becomes a row with null lists, its code and its message.
        first_row: position of the first result within its shard.
        method: derives ``token_weights`` from the raw scores.
        metadata: plain data for the schema; the method and the format version are added.

    Raises:
        TableError: a result's arrays differ in length, which would shift every token after the missing one, or its
            optional columns differ from those that the fingerprint in the metadata names.
    """
    schema = schema_with({**metadata, "method": method.to_dict()})
    wanted = [column.name for column in columns.optional(schema.names)]
    rows = [_row(result, first_row + i, method, wanted) for i, result in enumerate(results)]
    return pa.Table.from_pylist(rows, schema=schema)


def _row(result: Result, row_index: int, method: weights.Method, wanted: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"sample_id": result.sample_id, "row_index": row_index}
    if not isinstance(result, TokenScores):
        return {**row, "status": result.code.value, "error": result.message}
    if sorted(result.optional) != sorted(wanted):
        raise TableError(
            f"sample {result.sample_id!r} has the optional columns {shown(sorted(result.optional))}, but the "
            f"fingerprint of its run names {shown(wanted)}; have the engine list what it returns under 'columns'"
        )
    arrays = {**result.arrays, WEIGHTS: method(result)}
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise TableError(f"sample {result.sample_id!r}: arrays differ in length ({lengths}); give one value per token")
    return {**row, **arrays, "text_hash": result.text_hash, "status": TEXT_ONLY if result.text_only else OK}
