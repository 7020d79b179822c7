"""Files are encoded as each column says, hold the same values, and need no reader but Parquet's."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.output.encodings import LEVEL, writer_options
from scorer.columns import COLUMNS, REQUIRED, of_contrast
from scorer.results import TokenScores
from scorer.table import build_table
from scorer.weights import Method


def results(rows: int = 64, tokens: int = 40) -> list[TokenScores]:
    rng = np.random.default_rng(0)
    found = []
    for i in range(rows):
        ends = np.cumsum(rng.integers(1, 9, tokens)).astype(np.int32)
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int32)
        ids = rng.integers(0, 32_000, tokens).astype(np.int32)
        clean, contrast, gap = (rng.normal(size=tokens).astype(np.float32) for _ in range(3))
        turns = np.zeros(tokens, np.int16)
        found.append(TokenScores(f"row {i}", ids, starts, ends, turns, f"{i:032x}", gap, clean, contrast))
    return found


def table() -> pa.Table:
    return build_table(results(), 0, Method("cal"), {})


def written(data: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(data, buffer, **(options or writer_options(data.schema)))
    return buffer.getvalue()


def chunks(data: bytes) -> dict[str, pq.ColumnChunkMetaData]:
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    return {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}


def test_every_column_has_the_encoding_of_its_record() -> None:
    found = chunks(written(table()))
    assert len(found) == len([column for column in COLUMNS if column.required])
    for column in COLUMNS:
        if not column.required:
            continue
        chunk = found[f"{column.name}.list.element" if column.per_token else column.name]
        assert (column.encoding or "RLE_DICTIONARY") in chunk.encodings, column.name
        assert ("RLE_DICTIONARY" in chunk.encodings) == (column.encoding is None), column.name
        assert chunk.compression == "ZSTD"


def test_the_values_are_the_same_bits() -> None:
    data = table()
    back = pq.read_table(io.BytesIO(written(data)))
    assert (back.schema.names, back.schema.metadata) == (data.schema.names, data.schema.metadata)
    for name in data.column_names:
        assert back.column(name).to_pylist() == data.column(name).to_pylist(), name


def test_a_token_takes_fewer_bytes_than_by_default() -> None:
    """Random scores do not compress: these are the bytes that a dictionary of them costs."""
    assert len(written(table())) < 0.9 * len(written(table(), compression="zstd"))


def test_columns_of_the_dataset_keep_their_dictionary() -> None:
    data = table()
    words = pa.array(["one", "two"] * (len(data) // 2))
    nested = pa.array([{"logit_gap": "x", "more": [1, 2]}] * len(data))
    merged = data.append_column("word", words).append_column("nested", nested)
    found = chunks(written(merged))
    for path in ("word", "nested.logit_gap", "nested.more.list.element"):
        assert "RLE_DICTIONARY" in found[path].encodings
    assert "RLE_DICTIONARY" not in found["logit_gap.list.element"].encodings


def test_a_dataset_s_column_may_have_the_name_of_our_leaf() -> None:
    name = "logit_gap.list.element"
    data = table().append_column(name, pa.array(["text"] * 64))
    back = pq.ParquetFile(io.BytesIO(written(data))).read()
    assert back.column(name).to_pylist() == ["text"] * 64
    assert back.column("logit_gap").to_pylist() == data.column("logit_gap").to_pylist()


def test_scores_of_a_further_contrast_are_encoded_as_scores() -> None:
    masked = of_contrast("masked")
    further = [replace(one, optional={c.name: one.logit_gap + 1 for c in masked}) for one in results()]
    names = [*(column.name for column in REQUIRED), *(c.name for c in masked)]
    data = build_table(further, 0, Method("cal"), {"fingerprint": {"columns": names}})
    found = chunks(written(data))
    for column in masked:
        assert "BYTE_STREAM_SPLIT" in found[f"{column.name}.list.element"].encodings
    assert pq.read_table(io.BytesIO(written(data))).equals(data)


def test_a_dataset_s_columns_may_have_the_names_of_a_contrast_s() -> None:
    words = pa.array(["text"] * 64)
    data = table().append_column("logit_gap_mine", words).append_column("logprob_mine", words)
    found = chunks(written(data))
    assert "RLE_DICTIONARY" in found["logit_gap_mine"].encodings


@pytest.mark.parametrize("column", [column for column in REQUIRED if column.encoding is not None], ids=lambda c: c.name)
def test_a_schema_without_some_of_our_columns_is_written_too(column: Any) -> None:
    data = table().drop_columns([column.name])
    assert pq.read_table(io.BytesIO(written(data))).equals(data)


def test_the_level_is_named() -> None:
    """A default of pyarrow may change, and an output's bytes with it."""
    assert writer_options(table().schema)["compression_level"] == LEVEL
