"""The contract between a scoring run and its readers: schema, metadata, hashes."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorer.errors import FailureCode, TableError
from scorer.results import Failure, Result, TokenScores
from scorer.table import METADATA_KEY, SCHEMA, SCORE_FIELDS, build_table, read_metadata, schema_with, text_hash
from scorer.weights import Method
from tests.scorer.test_weights import scores, scores_of

FAILED = Failure("bad", FailureCode.IMAGE_UNREADABLE, "image of 12 bytes does not decode")
results = st.one_of(scores(), st.builds(Failure, st.text(max_size=5), st.sampled_from(FailureCode), st.text()))


def through_parquet(table: pa.Table) -> pa.Table:
    file = io.BytesIO()
    pq.write_table(table, file)
    return pq.read_table(io.BytesIO(file.getvalue()))


def test_the_schema_is_what_readers_were_promised() -> None:
    def lists(kind: pa.DataType) -> pa.DataType:
        return pa.list_(kind)

    assert [(field.name, field.type, field.nullable) for field in SCHEMA] == [
        ("sample_id", pa.string(), False),
        ("row_index", pa.int64(), False),
        ("token_ids", lists(pa.int32()), True),
        ("token_starts", lists(pa.int32()), True),
        ("token_ends", lists(pa.int32()), True),
        ("token_turns", lists(pa.int16()), True),
        ("logit_gap", lists(pa.float32()), True),
        ("logprob_clean", lists(pa.float32()), True),
        ("logprob_contrast", lists(pa.float32()), True),
        ("token_weights", lists(pa.float32()), True),
        ("text_hash", pa.string(), True),
        ("status", pa.string(), False),
        ("error", pa.string(), True),
    ]


@given(st.lists(results, max_size=6), st.integers(0, 2**40))
def test_rows_come_back_from_parquet_as_they_went_in(rows: list[Result], first_row: int) -> None:
    method = Method("cal", {"high": 4})
    table = through_parquet(build_table(rows, first_row, method, {}))
    assert table.schema.equals(SCHEMA)
    assert read_metadata(table.schema) == read_metadata(schema_with({"method": method.to_dict()}))
    assert table["row_index"].to_pylist() == list(range(first_row, first_row + len(rows)))
    for got, row in zip(table.to_pylist(), rows, strict=True):
        assert got["sample_id"] == row.sample_id
        if isinstance(row, Failure):
            check_failed(got, row)
        else:
            check_scored(got, row, method)


def check_failed(got: dict[str, Any], failure: Failure) -> None:
    assert (got["status"], got["error"]) == (failure.code.value, failure.message)
    for name in (*(field.name for field in SCORE_FIELDS), "token_weights", "text_hash"):
        assert got[name] is None  # not an empty list: undefined is null


def check_scored(got: dict[str, Any], row: TokenScores, method: Method) -> None:
    assert (got["status"], got["error"], got["text_hash"]) == ("ok", None, row.text_hash)
    assert got["token_weights"] == method(row).tolist()
    for field in SCORE_FIELDS:
        assert got[field.name] == getattr(row, field.name).tolist()


def test_nan_stays_nan_and_does_not_become_null() -> None:
    row = scores_of([math.nan, 2.0])
    values = through_parquet(build_table([row], 0, Method(), {}))["logit_gap"].to_pylist()[0]
    assert math.isnan(values[0])
    assert values[1] == 2.0


def test_a_table_without_rows_has_the_schema() -> None:
    table = build_table([], 0, Method(), {})
    assert table.num_rows == 0
    assert table.schema.equals(SCHEMA)


def test_a_failed_row_beside_scored_ones_moves_nobody() -> None:
    table = build_table([scores_of([1.0]), FAILED, scores_of([4.0, 5.0])], 7, Method("cal", {"window": 1}), {})
    assert table["row_index"].to_pylist() == [7, 8, 9]
    assert table["token_weights"].to_pylist() == [[1.0], None, [4.0, 5.0]]


def test_arrays_of_different_length_are_refused() -> None:
    broken = dataclasses.replace(scores_of([1.0, 2.0]), token_ids=np.zeros(3, np.int32))
    with pytest.raises(TableError, match=r"sample 's': arrays differ in length .*'token_ids': 3"):
        build_table([broken], 0, Method(), {})


def test_metadata_is_json_that_survives_parquet(tmp_path: Path) -> None:
    document = {"model": {"name": "m", "digest": "0f"}, "contrast": "blank"}
    pq.write_table(build_table([FAILED], 0, Method("prior"), document), tmp_path / "t.parquet")
    schema = pq.read_schema(tmp_path / "t.parquet")
    assert read_metadata(schema) == {
        "format_version": 1,
        "method": {"name": "prior", "params": {"alpha": 1.0}},
        **document,
    }
    assert json.loads(schema.metadata[METADATA_KEY]) == read_metadata(schema)
    assert read_metadata(pa.schema([])) == {}


def test_equal_metadata_gives_equal_bytes() -> None:
    assert schema_with({"a": 1, "b": 2}).metadata == schema_with({"b": 2, "a": 1}).metadata


turns = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=4)


@given(turns, turns)
def test_different_texts_have_different_hashes(one: list[str], other: list[str]) -> None:
    assert (text_hash(one) == text_hash(other)) == (one == other)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.data())
def test_moving_text_between_turns_changes_the_hash(text: str, data: st.DataObject) -> None:
    cut, other = (data.draw(st.integers(0, len(text))) for _ in range(2))
    same = text_hash([text[:cut], text[cut:]]) == text_hash([text[:other], text[other:]])
    assert same == (cut == other)
    assert text_hash([text]) != text_hash([text, ""])


def test_the_hash_is_pinned() -> None:
    """Files that were published must go on matching: a change of the hash is a change of format."""
    assert text_hash(["a red kite", "über"]) == "a9be3f240b8b602d4faec1553883aa2f"
    assert text_hash(["café"]) != text_hash(["cafe\u0301"])  # the exact text, not a normal form of it


@pytest.mark.parametrize(
    "document", [b"{", b"null", b"[]", b'{"source": 3}', b'{"source": {"columns": 3}}', b'{"fingerprint": []}']
)
def test_damaged_metadata_are_named(document: bytes) -> None:
    schema = SCHEMA.with_metadata({METADATA_KEY: document})
    with pytest.raises(
        TableError, match=r"out/a\.parquet: the metadata under 'tokensight' are damaged: .*score it again"
    ):
        read_metadata(schema, "out/a.parquet")
