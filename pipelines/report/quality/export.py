"""Export the ranked rows as one Parquet file for cleaning a dataset: join on ``shard`` and ``row_index``.

The file has one row per listed row, in rank order. Ranks in lists that do not include the row are null.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.output.reader import Window, read_rows
from pipelines.report.quality.scan import Findings
from scorer.errors import ConfigError
from scorer.storage import open_url
from scorer.table import METADATA_KEY
from scorer.training.rows import ScoredRow

SCHEMA: Final = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row_index", pa.int64(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("text_hash", pa.string(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("lowest_gap", pa.float32(), nullable=False),
        pa.field("mean_absolute_gap", pa.float32(), nullable=False),
        pa.field("mean_gap", pa.float32(), nullable=False),
        pa.field("language_surprise", pa.float32(), nullable=False),
        pa.field("contradiction_rank", pa.int64()),
        pa.field("language_rank", pa.int64()),
        pa.field("duplicate_rank", pa.int64()),
        pa.field("copies", pa.int64()),
        pa.field("first_shard", pa.string()),
        pa.field("first_row_index", pa.int64()),
    ]
)
"""Ranks start at 1. ``mean_gap`` and ``language_surprise`` (minus the log-probability without the image) are means over
the tokens of the row, in nats. If the row repeats an earlier text, ``first_…`` is the earliest row with that text and
``copies`` the number of rows that have it. The other columns are as in the published files, or as defined in
:mod:`pipelines.report.quality.scan`."""

_PART: Final = 512
"""Rows read back at a time for values that the scan did not keep."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The ranks of a row, and the row it repeats."""

    contradiction_rank: int | None = None
    language_rank: int | None = None
    duplicate_rank: int | None = None
    copies: int | None = None
    first_shard: str | None = None
    first_row_index: int | None = None


def listed(findings: Findings) -> dict[tuple[str, int], Listed]:
    """Return every row of the three lists once, contradictions first."""
    rows: dict[tuple[str, int], Listed] = {}
    for rank, row in enumerate(findings.contradictions.listed, 1):
        rows[row] = Listed(contradiction_rank=rank)
    for rank, row in enumerate(findings.language.listed, 1):
        rows[row] = replace(rows.get(row, Listed()), language_rank=rank)
    for rank, repeat in enumerate(findings.duplicates.largest, 1):
        row, (shard, index) = findings.place(repeat.row), findings.place(repeat.first)
        rows[row] = replace(
            rows.get(row, Listed()),
            duplicate_rank=rank,
            copies=repeat.copies,
            first_shard=shard,
            first_row_index=index,
        )
    return rows


def export(output: str, findings: Findings, destination: str) -> int:
    """Write the listed rows to ``destination``, a path or URL whose folder is created, and return their number.

    Raises:
        ConfigError: The destination cannot be written.
    """
    rows = listed(findings)
    note = {"format_version": 1, **findings.to_dict()}
    schema = SCHEMA.with_metadata({METADATA_KEY: json.dumps({"quality": note}, sort_keys=True).encode()})
    places = list(rows)
    fs, path = open_url(destination, "--export-quality")
    try:
        fs.makedirs(fs._parent(path), exist_ok=True)
        with fs.open(path, "wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for start in range(0, len(places), _PART):
                part = {place: rows[place] for place in places[start : start + _PART]}
                writer.write_table(pa.Table.from_pylist(list(_documents(output, part)), schema=schema))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--export-quality {destination!r} cannot be written: {error}; name another file") from error
    return len(rows)


def rows_at(output: str, places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], ScoredRow]:
    """Read back the scored rows at these places."""
    windows = [Window(shard, row, row + 1) for shard, row in places]
    found = read_rows(output, windows)
    return {(row.shard, row.row_index): row for rows in found.values() for row in rows}


def _documents(output: str, part: Mapping[tuple[str, int], Listed]) -> Iterator[dict[str, Any]]:
    read = rows_at(output, list(part))
    for (shard, index), entry in part.items():
        scores = read[shard, index].scores
        gap = scores.logprob_gap.astype(np.float64)
        yield {
            "shard": shard,
            "row_index": index,
            "sample_id": scores.sample_id,
            "text_hash": scores.text_hash,
            "tokens": len(gap),
            "lowest_gap": np.fmin.reduce(gap),
            "mean_absolute_gap": np.nanmean(np.abs(gap)),
            "mean_gap": np.nanmean(gap),
            "language_surprise": -scores.logprob_contrast.astype(np.float64).mean(),
            **{name: getattr(entry, name) for name in Listed.__slots__},
        }
