"""The Parquet schema of the weights and its metadata: the contract between the scoring run and every reader.

Pure pyarrow and numpy: a trainer imports this file with no model, no Ray and no torch installed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from scorer import weights
from scorer.errors import TableError
from scorer.types import Result, TokenScores

FORMAT_VERSION: Final = 1
METADATA_KEY: Final = b"tokensight"
"""Key of the JSON document in the Parquet schema's metadata: format version, method, fingerprint."""

OK: Final = "ok"

SCORE_FIELDS: Final = (
    pa.field("token_ids", pa.list_(pa.int32())),
    pa.field("token_starts", pa.list_(pa.int32())),
    pa.field("token_ends", pa.list_(pa.int32())),
    pa.field("token_turns", pa.list_(pa.int16())),
    pa.field("logit_gap", pa.list_(pa.float32())),
    pa.field("logprob_clean", pa.list_(pa.float32())),
    pa.field("logprob_contrast", pa.list_(pa.float32())),
)
"""Raw scores, one list element per scored token."""

SCHEMA: Final = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("row_index", pa.int64(), nullable=False),
        *SCORE_FIELDS,
        pa.field("token_weights", pa.list_(pa.float32())),
        pa.field("text_hash", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
    ]
)
"""Columns of a published weights file, in order; README.md, "What is written", says what each holds."""


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
    """The schema carrying ``metadata`` (plain data) as one JSON document under :data:`METADATA_KEY`."""
    document = {"format_version": FORMAT_VERSION, **metadata}
    return SCHEMA.with_metadata({METADATA_KEY: json.dumps(document, sort_keys=True).encode()})


def read_metadata(schema: pa.Schema) -> dict[str, Any]:
    """The JSON document that :func:`schema_with` wrote; an empty dict for a foreign file."""
    raw = (schema.metadata or {}).get(METADATA_KEY)
    return {} if raw is None else json.loads(raw)


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
        TableError: a result whose arrays differ in length, which would shift every token after the gap.
    """
    rows = [_row(result, first_row + i, method) for i, result in enumerate(results)]
    return pa.Table.from_pylist(rows, schema=schema_with({**metadata, "method": method.to_dict()}))


def _row(result: Result, row_index: int, method: weights.Method) -> dict[str, Any]:
    row: dict[str, Any] = {"sample_id": result.sample_id, "row_index": row_index}
    if not isinstance(result, TokenScores):
        return {**row, "status": result.code.value, "error": result.message}
    for field in SCORE_FIELDS:
        row[field.name] = getattr(result, field.name)
    row["token_weights"] = method(result)
    lengths = {name: len(values) for name, values in row.items() if isinstance(values, np.ndarray)}
    if len(set(lengths.values())) != 1:
        raise TableError(f"sample {result.sample_id!r}: arrays differ in length ({lengths}); give one value per token")
    row["text_hash"] = result.text_hash
    row["status"] = OK
    return row
