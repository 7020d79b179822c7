"""The list of columns, what is made from it, and the one decoder of published rows."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pyarrow as pa
import pytest

from scorer import columns
from scorer.columns import REQUIRED, WEIGHTS, Column
from scorer.decoding import scored_rows, token_column
from scorer.errors import ConfigError, FailureCode, TableError
from scorer.results import Failure, TokenScores
from scorer.table import SCHEMA, SCORE_FIELDS, build_table, columns_in
from scorer.training.rows import Rows, ScoredRow, WeightRow
from scorer.weights import Method
from tests.scorer.test_weights import scores_of
from tests.toy_columns import FLAG, NAMES, TOY, register

SCORES = [column for column in REQUIRED if column.kind in ("span", "raw")]
FAILED = Failure("bad", FailureCode.IMAGE_MISSING, "gone")


def toy_scores(gap: list[float]) -> TokenScores:
    values = {TOY.name: np.array(gap, np.float32) * 2, FLAG.name: np.array(gap) > 1}
    return replace(scores_of(gap), optional=values)


def toy_table() -> pa.Table:
    results = [toy_scores([1, 2, 3]), FAILED, toy_scores([4])]
    return build_table(results, 0, Method(), {"fingerprint": {"columns": list(NAMES)}})


def test_token_scores_have_an_attribute_for_each_required_column() -> None:
    own = [field.name for field in fields(TokenScores)]
    beside = ("sample_id", "text_hash", "optional", "texts", "text_only")
    assert [name for name in own if name not in beside] == [c.name for c in SCORES]
    hints = get_type_hints(TokenScores)
    for column in SCORES:
        (dtype,) = get_args(get_args(hints[column.name])[1])
        assert dtype == column.dtype.type, column.name


def test_names_are_unique_and_meanings_fit_a_table() -> None:
    names = [column.name for column in columns.COLUMNS]
    assert len(set(names)) == len(names)
    assert all(column.meaning and not set(column.meaning) & set("|\n") for column in columns.COLUMNS)
    assert [field.name for field in SCORE_FIELDS] == [column.name for column in SCORES]


def test_every_column_is_told_in_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    assert [column.name for column in columns.COLUMNS if f"`{column.name}`" not in readme] == []


@pytest.mark.parametrize("kind", ["key", "derived", "outcome"])
def test_what_is_optional_is_a_span_or_a_raw_score_per_token(kind: columns.Kind) -> None:
    with pytest.raises(ValueError, match="column 'x' is optional, so it must be per token, and a span or a raw score"):
        Column("x", pa.float32(), "x", kind, required=False)
    with pytest.raises(ValueError, match="column 'x' is optional"):
        Column("x", pa.float32(), "x", "raw", per_token=False, required=False)


def test_arrays_go_by_column_name_and_come_back() -> None:
    scores = toy_scores([1, 2])
    assert list(scores.arrays) == [*(column.name for column in SCORES), *NAMES]
    back = TokenScores.from_arrays("s", "hash", scores.arrays)
    assert set(back.optional) == set(NAMES)
    assert all(back.arrays[name] is array for name, array in scores.arrays.items())
    assert TokenScores.from_arrays("s", "hash", scores_of([1]).arrays).optional == {}


def test_optional_columns_stand_in_their_place_where_the_run_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)
    names = toy_table().schema.names
    at = SCHEMA.names.index(WEIGHTS)
    assert names == [*SCHEMA.names[:at], *NAMES, *SCHEMA.names[at:]]
    assert build_table([scores_of([1])], 0, Method(), {"fingerprint": {}}).schema.names == SCHEMA.names
    # A newer release's column, of which this one knows nothing.
    assert columns.of_run({"columns": ["later"]}) == REQUIRED


@pytest.mark.parametrize("named", [[], ["toy"]])
def test_an_engine_names_what_it_gives(monkeypatch: pytest.MonkeyPatch, named: list[str]) -> None:
    register(monkeypatch)
    names = "toy" if named else "none"
    message = f"sample 's' has the optional columns is_toy, toy, but the fingerprint of its run names {names};"
    with pytest.raises(TableError, match=message):
        build_table([toy_scores([1])], 0, Method(), {"fingerprint": {"columns": named}})
    with pytest.raises(TableError, match="has the optional columns none, but the fingerprint of its run names toy"):
        build_table([scores_of([1])], 0, Method(), {"fingerprint": {"columns": ["toy"]}})


def test_optional_columns_are_read_where_they_are_and_absent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)
    table = toy_table()
    first, failed, last = Rows(table, "x")
    assert isinstance(first, ScoredRow) and isinstance(last, ScoredRow) and not failed.ok
    assert first.scores.optional[TOY.name].tolist() == [2, 4, 6]
    assert first.scores.optional[TOY.name].dtype == np.float32
    assert last.scores.optional[FLAG.name].tolist() == [True]
    assert last.scores.optional[FLAG.name].dtype == np.bool_
    mapped = WeightRow.from_columns(table.to_pylist()[0])
    assert mapped.scores is not None and mapped.scores.optional[TOY.name].tolist() == [2, 4, 6]
    for absent in (table.drop_columns(list(NAMES)), build_table([scores_of([1])], 0, Method(), {})):
        row = Rows(absent, "x")[0]
        assert isinstance(row, ScoredRow) and row.scores.optional == {}
        mapped = WeightRow.from_columns(absent.to_pylist()[0])
        assert mapped.scores is not None and mapped.scores.optional == {}


def test_a_column_of_the_dataset_is_not_taken_for_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A merged output of before the column was known, whose dataset has one of that name."""
    register(monkeypatch)
    table = build_table([scores_of([1])], 0, Method(), {}).append_column("toy", pa.array(["theirs"]))
    row = Rows(table, "x")[0]
    assert isinstance(row, ScoredRow) and row.scores.optional == {}
    for theirs in (0.5, "text", None):
        mapped = WeightRow.from_columns({**table.to_pylist()[0], "toy": theirs, "js": theirs})
        assert mapped.scores is not None and mapped.scores.optional == {}


MASKED = [column.name for column in columns.of_contrast("masked")]


def two_contrasts() -> pa.Table:
    further = dict(zip(MASKED, (np.array([4, 5, 6], np.float32), np.array([-1, -2, -3], np.float32)), strict=True))
    scores = replace(scores_of([1, 2, 3]), optional=further)
    fingerprint = {"contrast": "blank", "columns": MASKED}
    return build_table([scores, FAILED], 0, Method(), {"fingerprint": fingerprint})


def test_a_mapped_row_derives_weights_from_the_contrast_that_is_named() -> None:
    columns_of_row, failed = two_contrasts().to_pylist()
    identity = Method("cal", {"window": 1, "high": 9})
    weights = [
        WeightRow.from_columns(columns_of_row, identity, contrast=contrast).weights for contrast in (None, "masked")
    ]
    assert [w is not None and w.tolist() for w in weights] == [[1, 2, 3], [4, 5, 6]]
    assert WeightRow.from_columns(failed, identity, contrast="masked").weights is None
    with pytest.raises(TableError, match="the further contrast 'blank'; it has masked, and those of the run's first"):
        WeightRow.from_columns(columns_of_row, identity, contrast="blank")
    with pytest.raises(ConfigError, match="the contrast 'masked' is given without a method"):
        WeightRow.from_columns(columns_of_row, contrast="masked")


@pytest.mark.parametrize(
    "theirs",
    [
        "text",
        0.5,
        None,
        [0.5],
        [0.5, 0.5, None],
        ["1", "2", "3"],
        [1, 2, 3],
        [[1.0], [2.0, 3.0], []],
        [[1.0], [2.0], [3.0]],
        {"a": 1.0},
        np.zeros((3, 1)),
    ],
    ids=repr,
)
def test_a_mapped_column_of_the_dataset_is_not_taken_for_ours(theirs: object) -> None:
    """Merged with a dataset that has columns of these names; a mapping does not say which are the run's."""
    merged = two_contrasts().to_pylist()[0] | dict.fromkeys(("is_stop", "logit_gap_blur", "logprob_blur"), theirs)
    merged |= {"logit_gap_clean": theirs, "logprob_x": theirs, "logit_gap_x": [0.5, 0.5, 0.5]}
    row = WeightRow.from_columns(merged, "cal")
    assert isinstance(row, ScoredRow)
    assert list(row.scores.optional) == MASKED
    assert row.scores.further_contrasts == ("masked",)
    with pytest.raises(TableError, match="no scores for the further contrast 'blur'"):
        WeightRow.from_columns(merged, "cal", contrast="blur")


def test_a_dataset_s_columns_are_no_contrast_of_the_run() -> None:
    table = two_contrasts()
    for name in ("logit_gap_blur", "logprob_blur", "logit_gap_clean"):
        table = table.append_column(name, pa.array([["a"], None]))
    assert columns.contrasts_in(table.schema.names) == ("masked", "blur")  # names alone do not tell
    with pytest.raises(TableError, match="x has no scores for the contrast 'blur'; it has blank, masked: choose one"):
        Rows(table, "x", Method(), "blur")
    assert len(Rows(table, "x", Method(), "masked")) == 2


@pytest.mark.parametrize("name", ["token_starts", "logit_gap", WEIGHTS])
@pytest.mark.parametrize("values", [[], [1], [1, 1, 1, 1]])
def test_mapped_lists_that_differ_in_length_are_refused(name: str, values: list[int]) -> None:
    mapped = two_contrasts().to_pylist()[0] | {name: values}
    with pytest.raises(TableError, match=rf"row 0 of x has {len(values)} {name} for 3 token_ids"):
        WeightRow.from_columns(mapped, shard="x")


@pytest.mark.parametrize("column", REQUIRED, ids=lambda column: column.name)
def test_a_required_column_that_is_absent_is_an_error(column: Column) -> None:
    table = build_table([scores_of([1])], 0, Method(), {}).drop_columns([column.name])
    with pytest.raises(
        TableError, match=f"x has no columns {column.name}; it has .*: give the output of a scoring run"
    ):
        Rows(table, "x")
    with pytest.raises(TableError, match=f"no columns {column.name}"):
        columns_in(table.schema, "x")
    with pytest.raises(TableError, match=f"no columns {column.name}"):
        WeightRow.from_columns(table.to_pylist()[0])


@pytest.mark.parametrize("name", [column.name for column in SCORES if column.name != "token_ids"] + [WEIGHTS])
@pytest.mark.parametrize("values", [None, [1], [1, 1, 1, 1]])
def test_lists_that_differ_in_length_are_refused(name: str, values: list[int] | None) -> None:
    table = build_table([scores_of([1, 2, 3]), scores_of([4, 5, 6])], 5, Method(), {})
    lists = [table[name][0].as_py(), values]
    at = table.schema.get_field_index(name)
    damaged = table.set_column(at, table.schema.field(name), pa.array(lists, table.schema.field(name).type))
    count = len(values or [])
    with pytest.raises(
        TableError, match=rf"row 6 of x has {count} {name} for 3 token_ids; the file is damaged: .*inspect"
    ):
        Rows(damaged, "x")


# --- the decoder -------------------------------------------------------------------------------------------------

IDS = REQUIRED[2]


def decoded(array: pa.Array) -> tuple[list[int], list[int], list[int]]:
    column = token_column(pa.table({"token_ids": array}), IDS)
    return column.values.tolist(), column.edges.tolist(), column.owners.tolist()


def test_lists_are_laid_end_to_end() -> None:
    lists = pa.array([[1, 2], None, [], [3]], pa.list_(pa.int32()))
    assert decoded(lists) == ([1, 2, 3], [0, 2, 2, 2, 3], [0, 0, 3])
    assert decoded(lists.slice(1)) == ([3], [0, 0, 0, 1], [2])
    assert decoded(lists.cast(pa.large_list(pa.int64()))) == decoded(lists)
    assert decoded(pa.array([], pa.list_(pa.int32()))) == ([], [0], [])
    assert decoded(pa.chunked_array([lists, lists.slice(3)])) == ([1, 2, 3, 3], [0, 2, 2, 2, 3, 4], [0, 0, 3, 4])


def test_values_that_a_null_list_hides_are_nobodys() -> None:
    hiding = pa.ListArray.from_arrays(
        pa.array([0, 2, 4], pa.int32()), pa.array([1, 2, 3, 4], pa.int32()), mask=pa.array([True, False])
    )
    assert decoded(hiding) == ([3, 4], [0, 0, 2], [1, 1])


def test_nulls_are_seen() -> None:
    column = token_column(pa.table({"token_ids": pa.array([[1, None], None, [2]], pa.list_(pa.int32()))}), IDS)
    assert column.is_null.tolist() == [False, True, False]
    assert column.has_null_inside.tolist() == [True, False, False]


def test_only_scored_rows_are_kept_and_an_unknown_status_is_none() -> None:
    table = pa.table({"status": pa.array(["ok", "image_missing", None, "ok"]), "row": [0, 1, 2, 3]})
    assert scored_rows(table)["row"].to_pylist() == [0, 3]
