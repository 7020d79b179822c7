"""P(text) by one tokenizer, carried onto another's tokens: exact where spans agree, sums preserved where not."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from scorer.columns import IS_STOP, LOGPROB_TEXT
from scorer.errors import ConfigError, FailureCode, TableError
from scorer.results import Failure, Result, TokenScores
from scorer.spans import apportion
from scorer.table import build_table, text_hash
from scorer.training import WeightTable, read_weights
from scorer.types import Float32Array
from scorer.weights import Method, prior
from tests.scorer.test_projection import Spans, partitions

SHARD = "train.parquet"
TEXTS = ["très 🪁 kite", "", "two boats"]
SIZES = [len(text.encode()) for text in TEXTS]


def scores(
    cuts: Sequence[Sequence[int]], seed: int, *, stops: bool = True, texts: Sequence[str] = TEXTS
) -> TokenScores:
    """Random scores of texts that are cut into tokens at these bytes; with ``stops``, turns end in a stop token."""
    rows: list[tuple[int, int, int, bool]] = []
    for turn, own in enumerate(cuts):
        rows += [(turn, start, end, False) for start, end in pairwise(own)]
        if stops and len(own) > 1:
            rows.append((turn, own[-1], own[-1], True))
    turns, starts, ends, is_stop = (np.array(column) for column in zip(*rows, strict=True))
    logprobs = -np.random.default_rng(seed).exponential(2, (3, len(rows))).astype(np.float32)
    return TokenScores(
        f"row-{seed % 10}",
        np.arange(len(rows), dtype=np.int32),
        starts.astype(np.int32),
        ends.astype(np.int32),
        turns.astype(np.int16),
        text_hash(texts),
        *logprobs,
        optional={IS_STOP: is_stop} if stops else {},
    )


FINE = [[0, 1, 2, 4, 5, 6, 10, 12, 15], [], [0, 3, 4, 9]]
COARSE = [[0, 5, 8, 15], [], [0, 2, 6, 9]]  # byte 8 lies inside the kite's four bytes


def publish(output: Path, results: Sequence[Result], contrast: str, name: str = SHARD, **summary: Any) -> Path:
    stops = any(isinstance(one, TokenScores) and one.optional for one in results)
    fingerprint = {"contrast": contrast, "model": "m", **({"columns": [IS_STOP]} if stops else {})}
    output.mkdir(parents=True, exist_ok=True)
    pq.write_table(build_table(results, 0, Method("prior"), {"fingerprint": fingerprint}), output / name)
    shards = [{"name": name, "rows": len(results)}]
    document = {"rows": len(results), "shards": shards, "contrast": contrast, "model": "m", **summary}
    (output / "_SUCCESS").write_text(json.dumps(document))
    return output


def joined(tmp_path: Path, of: Sequence[Result], text: Sequence[Result], **options: Any) -> WeightTable:
    out = publish(tmp_path / "out", of, "blank")
    alone = publish(tmp_path / "text", text, "removed", model="captions-lm")
    return WeightTable.open(out, **{"method": "prior", "text": alone, **options})


def text_logprobs(row: Any) -> Float32Array:
    found: Float32Array = row.scores.optional[LOGPROB_TEXT]
    return found


@st.composite
def cases(draw: st.DrawFn) -> tuple[Float32Array, Spans, Spans]:
    size = draw(st.integers(1, 40))
    source, target = draw(partitions(size)), draw(partitions(size))
    count = len(source[0])
    values = draw(st.lists(st.floats(-30, 0, width=32), min_size=count, max_size=count))
    return np.array(values, np.float32), source, target


def naive(values: Float32Array, source: Spans, target: Spans) -> list[float]:
    per_byte = np.full(200, np.nan)
    for value, start, end in zip(values.astype(np.float64), *source, strict=True):
        per_byte[start:end] = value / max(end - start, 1)
    return [float(per_byte[s:e].sum()) if e > s else np.nan for s, e in zip(*target, strict=True)]


@given(cases())
def test_apportioning_equals_the_naive_form_and_preserves_the_sum(case: tuple[Float32Array, Spans, Spans]) -> None:
    values, source, target = case
    got = apportion(values, *source, *target)
    assert got.dtype == np.float32
    assert_allclose(got, naive(values, source, target), rtol=1e-5, atol=1e-6)
    has_bytes = source[1] > source[0]
    assert np.nansum(got.astype(np.float64)) == pytest.approx(float(values[has_bytes].sum()), rel=1e-4, abs=1e-4)


@given(cases())
def test_equal_spans_keep_their_values(case: tuple[Float32Array, Spans, Spans]) -> None:
    values, source, _ = case
    expected = np.where(source[1] > source[0], values, np.nan).astype(np.float32)
    assert_allclose(apportion(values, *source, *source), expected, rtol=1e-6)


def test_a_byte_that_no_source_covers_makes_its_target_unknown() -> None:
    values = np.array([-1, -2], np.float32)
    got = apportion(values, np.array([0, 4]), np.array([2, 6]), np.array([0, 2, 4, 5]), np.array([2, 5, 6, 5]))
    assert_array_equal(got, np.array([-1, np.nan, -2, np.nan], np.float32))


def test_a_vlm_token_has_the_product_of_the_text_tokens_it_covers(tmp_path: Path) -> None:
    """By hand: boundaries at bytes 5 and 15 agree, byte 8 is in the middle of the text reference's bytes 6 to 10."""
    text = scores(FINE, 1)
    p = text.logprob_contrast
    row = joined(tmp_path, [scores(COARSE, 11)], [text]).row(SHARD, 0)
    expected = [p[:4].sum(), p[4] + p[5] / 2, p[5] / 2 + p[6] + p[7], p[8]]  # the last is the turn's stop token
    expected += [p[9] * 2 / 3, p[9] / 3 + p[10] + p[11] * 2 / 5, p[11] * 3 / 5, p[12]]
    assert_allclose(text_logprobs(row), expected, rtol=1e-6)


@pytest.mark.parametrize(("mine", "theirs"), [(FINE, COARSE), (COARSE, FINE), (FINE, FINE)])
def test_the_sum_over_a_turn_is_the_text_references(
    tmp_path: Path, mine: list[list[int]], theirs: list[list[int]]
) -> None:
    text = scores(theirs, 1)
    row = joined(tmp_path, [scores(mine, 11)], [text]).row(SHARD, 0)
    for turn in (0, 2):
        got = text_logprobs(row)[row.scores.token_turns == turn].sum()  # type: ignore[union-attr]
        assert got == pytest.approx(text.logprob_contrast[text.token_turns == turn].sum(), rel=1e-5)
    if mine is theirs:
        assert_allclose(text_logprobs(row), text.logprob_contrast, rtol=1e-6)


def test_prior_reads_the_text_reference_and_not_the_contrast(tmp_path: Path) -> None:
    own, text = scores(FINE, 11), scores(FINE, 1)
    (row,) = joined(tmp_path, [own], [text])
    assert row.weights is not None
    assert_array_equal(row.weights, prior(replace(own, logprob_contrast=text_logprobs(row))))
    (without,) = read_weights(tmp_path / "out", method="prior")
    assert_array_equal(without.weights, prior(own))
    assert not np.allclose(row.weights, without.weights)  # the control: the two do differ


@pytest.mark.parametrize("theirs", [False, True])
@pytest.mark.parametrize("mine", [False, True])
def test_stop_tokens_of_either_or_neither(tmp_path: Path, mine: bool, theirs: bool) -> None:
    text = scores(COARSE, 1, stops=theirs)
    (row,) = joined(tmp_path, [scores(FINE, 11, stops=mine)], [text])
    assert row.scores is not None and row.weights is not None
    found, stop = text_logprobs(row), row.scores.is_stop
    assert stop.sum() == 2 * mine
    if theirs:
        assert_array_equal(found[stop], text.logprob_contrast[text.is_stop][: stop.sum()])
    else:
        assert np.isnan(found[stop]).all()
        assert (row.weights[stop] == 1).all()
    assert np.isfinite(found[~stop]).all()
    assert row.weights.mean() == pytest.approx(1, rel=1e-6)
    assert row.weights[~stop].std() > 0.1


def test_a_stop_token_that_is_unknown_leaves_the_others_as_they_are_without_it(tmp_path: Path) -> None:
    text = scores(COARSE, 1, stops=False)
    (with_stop,) = joined(tmp_path / "1", [scores(FINE, 11)], [text])
    (without,) = joined(tmp_path / "2", [scores(FINE, 11, stops=False)], [text])
    assert with_stop.scores is not None and with_stop.weights is not None
    assert_array_equal(with_stop.weights[~with_stop.scores.is_stop], without.weights)


FAILED = Failure("row-2", FailureCode.TEXT_TOO_LONG, "2 tokens too many")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ([scores(FINE, 1)], r"row 1 of train\.parquet \(sample 'row-2'\): the text reference .*text has no such row"),
        ([scores(FINE, 1), FAILED], r"row 1 of .*did not score it: text_too_long \(2 tokens too many\); score"),
        (
            [scores(FINE, 1), scores([[0, 5, 10], [], [0, 9]], 2)],
            r"row 1 of .*gives no probability to 2 of the row's 13 tokens, the first at bytes 10 to 12 of turn 0",
        ),
    ],
    ids=["row", "failed", "cut"],
)
def test_what_the_text_reference_lacks_is_an_error_or_nan(tmp_path: Path, text: list[Result], said: str) -> None:
    own = [scores(FINE, 11), scores(FINE, 12)]
    table = joined(tmp_path, own, text)
    assert np.isfinite(table.row(SHARD, 0).weights).all()  # type: ignore[arg-type]
    with pytest.raises(TableError, match=said + r".*, or give text_missing='nan'"):
        list(table)
    lenient = joined(tmp_path, own, text, text_missing="nan")
    first, second = lenient
    assert np.isfinite(first.weights).all()  # type: ignore[arg-type]
    assert np.isnan(second.weights).sum() >= 11  # type: ignore[arg-type]
    assert np.isnan(text_logprobs(second)).any()


def test_a_shard_that_the_text_reference_lacks(tmp_path: Path) -> None:
    out = publish(tmp_path / "out", [scores(FINE, 1)], "blank")
    text = publish(tmp_path / "text", [scores(FINE, 1)], "removed", name="other.parquet")
    with pytest.raises(TableError, match=r"text has no shard 'train\.parquet'; score the same dataset"):
        list(read_weights(out, method="prior", text=text))
    (row,) = read_weights(out, method="prior", text=text, text_missing="nan")
    assert np.isnan(text_logprobs(row)).all()


def test_another_text_is_refused_whatever_else_is_allowed(tmp_path: Path) -> None:
    other = scores(FINE, 1, texts=["très 🪁 kitE", "", "two boats"])
    table = joined(tmp_path, [scores(FINE, 11)], [other], text_missing="nan")
    with pytest.raises(TableError, match=r"row 0 of train\.parquet \(sample 'row-1'\): the text reference .* scored a"):
        table.row(SHARD, 0)


def test_an_output_with_another_contrast_is_no_text_reference(tmp_path: Path) -> None:
    out = publish(tmp_path / "out", [scores(FINE, 1)], "blank")
    with pytest.raises(TableError, match=r"out has the contrast 'blank'; a text reference's.*--contrast removed"):
        read_weights(out, method="prior", text=out)
    (out / "_SUCCESS").unlink()
    published = read_weights(out, method="prior", text=out, allow_unfinished=True)  # no summary: the file says it
    with pytest.raises(TableError, match=r"train\.parquet has the contrast 'blank'"):
        list(published)


@pytest.mark.parametrize("method", [None, "cal"])
def test_a_text_reference_that_nothing_reads_is_refused(tmp_path: Path, method: str | None) -> None:
    with pytest.raises(ConfigError, match=r"which does not read one: name a method that does \(prior\)"):
        joined(tmp_path, [scores(FINE, 11)], [scores(FINE, 1)], method=method)


def test_a_function_may_read_it(tmp_path: Path) -> None:
    (row,) = joined(tmp_path, [scores(FINE, 11)], [scores(FINE, 1)], method=lambda s: -s.optional[LOGPROB_TEXT])
    assert_array_equal(row.weights, -text_logprobs(row))


def test_the_option_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="text_missing is 'skip'; it must be one of error, nan"):
        joined(tmp_path, [scores(FINE, 11)], [scores(FINE, 1)], text_missing="skip")


def test_the_table_says_which_reference_it_used(tmp_path: Path) -> None:
    table = joined(tmp_path, [scores(FINE, 11)], [scores(FINE, 1)])
    assert "weights by prior and the text reference 'captions-lm' ('" in repr(table)
    assert table.published.reference == f"the text reference 'captions-lm' ({str(tmp_path / 'text')!r})"
    without = WeightTable.open(tmp_path / "out", method="prior")
    assert "weights by prior and no text reference, but the contrast blank" in repr(without)
    assert WeightTable.open(tmp_path / "out", method="cal").published.reference is None


def test_a_pickled_table_joins_too(tmp_path: Path) -> None:
    table = joined(tmp_path, [scores(FINE, 11)], [scores(FINE, 1)])
    copy = pickle.loads(pickle.dumps(table))
    assert_array_equal(copy.row(SHARD, 0).weights, table.row(SHARD, 0).weights)
    assert_array_equal(copy.find("row-1").weights, table.row(SHARD, 0).weights)
