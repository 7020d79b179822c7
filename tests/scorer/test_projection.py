"""Weights that travel between tokenizers through byte spans."""

from __future__ import annotations

import time
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from scorer.errors import SpanError
from scorer.spans import project, token_byte_spans
from scorer.types import Float32Array, Int32Array
from tests.scorer.test_spans import LOSSLESS, LOSSY, texts

Spans = tuple[Int32Array, Int32Array]
floats = st.floats(0, 5, width=32)
TINY = float(np.finfo(np.float32).tiny)
"""A float32 below it has fewer digits than `rtol` asks for."""


@st.composite
def partitions(draw: st.DrawFn, size: int) -> Spans:
    """A text of ``size`` bytes cut into tokens; cuts may repeat, which makes empty tokens."""
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=12)))
    edges = np.array([0, *cuts, size], np.int32)
    return edges[:-1], edges[1:]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Float32Array, Spans, Spans]:
    size = draw(st.integers(1, 40))
    source, target = draw(partitions(size)), draw(partitions(size))
    weights = np.array(draw(st.lists(floats, min_size=len(source[0]), max_size=len(source[0]))), np.float32)
    return weights, source, target


def naive(weights: Float32Array, source: Spans, target: Spans, uncovered: float, empty: float) -> list[float]:
    per_byte = np.full(200, uncovered)
    for weight, start, end in zip(weights, *source, strict=True):
        per_byte[start:end] = weight
    return [float(per_byte[s:e].mean()) if e > s else empty for s, e in zip(*target, strict=True)]


def mass(weights: Float32Array, spans: Spans) -> float:
    size = spans[1] - spans[0]
    return float(np.sum(np.where(size > 0, weights, 0).astype(np.float64) * size))


@given(cases())
def test_equals_the_naive_form(case: tuple[Float32Array, Spans, Spans]) -> None:
    weights, source, target = case
    got = project(weights, *source, *target, empty=9.0)
    assert got.dtype == np.float32
    assert_allclose(got, naive(weights, source, target, np.nan, 9.0), rtol=1e-6, atol=TINY)


@given(cases(), st.integers(0, 12), st.integers(0, 12))
def test_uncovered_bytes_take_the_given_weight(case: tuple[Float32Array, Spans, Spans], first: int, last: int) -> None:
    weights, (starts, ends), target = case
    kept = slice(first, last)  # the source lost its head, its tail, or everything
    source = (starts[kept], ends[kept])
    got = project(weights[kept], *source, *target, uncovered=0.5, empty=0.0)
    assert_allclose(got, naive(weights[kept], source, target, 0.5, 0.0), rtol=1e-6, atol=TINY)


@given(cases())
def test_mass_is_kept(case: tuple[Float32Array, Spans, Spans]) -> None:
    weights, source, target = case
    assert mass(project(weights, *source, *target, empty=0.0), target) == pytest.approx(mass(weights, source), rel=1e-5)


@given(cases())
def test_equal_spans_give_equal_weights(case: tuple[Float32Array, Spans, Spans]) -> None:
    weights, source, _ = case
    full = source[1] > source[0]
    assert_array_equal(project(weights, *source, *source, empty=0.0)[full], weights[full])


@given(cases(), st.data())
def test_raising_a_source_never_lowers_a_target(case: tuple[Float32Array, Spans, Spans], data: st.DataObject) -> None:
    weights, source, target = case
    raised = weights.copy()
    i = data.draw(st.integers(0, len(weights) - 1))
    raised[i] += data.draw(st.floats(0, 3, width=32))
    before, after = (project(w, *source, *target, empty=0.0) for w in (weights, raised))
    assert np.all(after >= before)
    assert np.all(before >= 0)  # no sum of positive weights may come out negative by cancellation


@given(cases())
def test_a_target_lies_between_the_sources_under_it(case: tuple[Float32Array, Spans, Spans]) -> None:
    weights, source, target = case
    got = project(weights, *source, *target, empty=float(weights[0]))
    assert np.all(got >= weights.min() - 1e-6)
    assert np.all(got <= weights.max() + 1e-6)


@given(cases(), st.data())
def test_nan_reaches_the_targets_over_it_and_no_others(
    case: tuple[Float32Array, Spans, Spans], data: st.DataObject
) -> None:
    weights, (starts, ends), target = case
    i = data.draw(st.integers(0, len(weights) - 1))
    weights[i] = np.nan
    got = project(weights, starts, ends, *target, empty=0.0)
    shared = np.minimum(ends[i], target[1]) > np.maximum(starts[i], target[0])
    assert_array_equal(np.isnan(got), shared)


KINDS = ("gpt2", "bytes", "unigram", "llama2", "qwen2-nfc", "bert")


@pytest.mark.parametrize(("source_name", "target_name"), list(product(KINDS, repeat=2)))
@settings(max_examples=8)
@given(text=texts, data=st.data())
def test_any_tokenizer_to_any_other(source_name: str, target_name: str, text: str, data: st.DataObject) -> None:
    made = {**LOSSLESS, **LOSSY}
    encodings = [made[name]().encode(text) for name in (source_name, target_name)]
    source, target = (token_byte_spans(text, e.tokens, e.offsets) for e in encodings)
    assume(len(source[0]) > 0)
    weights = np.array(data.draw(st.lists(floats, min_size=len(source[0]), max_size=len(source[0]))), np.float32)
    got = project(weights, *source, *target, uncovered=1.0, empty=1.0)
    assert_allclose(got, naive(weights, source, target, 1.0, 1.0), rtol=1e-6, atol=TINY)
    if source_name in LOSSLESS and target_name in LOSSLESS:
        assert_array_equal(got, project(weights, *source, *target, empty=1.0))  # nothing is uncovered
        assert mass(got, target) == pytest.approx(mass(weights, source), rel=1e-5)
    if source_name == target_name:
        full = source[1] > source[0]
        assert_array_equal(got[full], weights[full])


@given(st.lists(cases(), min_size=1, max_size=5))
def test_a_batch_equals_its_rows(batch: list[tuple[Float32Array, Spans, Spans]]) -> None:
    rows = [project(w, *source, *target, empty=0.0) for w, source, target in batch]
    groups = [np.repeat(np.arange(len(batch)), [len(case[k][0]) for case in batch]) for k in (1, 2)]
    flat = [np.concatenate([case[k][edge] for case in batch]) for k in (1, 2) for edge in (0, 1)]
    got = project(
        np.concatenate([case[0] for case in batch]),
        *flat,
        source_groups=groups[0],
        target_groups=groups[1],
        empty=0.0,
    )
    assert_array_equal(got, np.concatenate(rows))


def test_groups_keep_turns_apart() -> None:
    # two turns, "ab" and "cd", one source token each; the target has a token of a third turn that the source lacks
    got = project(
        np.array([1, 5], np.float32),
        np.array([0, 0]),
        np.array([2, 2]),
        np.array([0, 1, 0, 0]),
        np.array([1, 2, 2, 3]),
        source_groups=np.array([0, 1], np.int16),
        target_groups=np.array([0, 0, 1, 2], np.int16),
        uncovered=0.25,
    )
    assert got.tolist() == [1, 1, 5, 0.25]


def test_nothing_to_project() -> None:
    none = np.zeros(0, np.int32)
    assert len(project(np.zeros(0, np.float32), none, none, none, none)) == 0


ONE = np.ones(1, np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ONE, [0], [2], [0], [3]), "span 0 has 1 bytes that no source span covers; give uncovered"),
        ((ONE, [0], [2], [0, 2], [2, 2]), "span 1 covers 0 bytes .* give empty=<weight>"),
        ((ONE, [0, 1], [1, 2], [0], [2]), r"weights have shape \(1,\) for 2 source spans"),
        ((np.ones(2, np.float32), [0, 1], [2, 3], [0], [2]), "source span 1 starts before its predecessor ends"),
        ((np.ones(2, np.float32), [2, 0], [3, 1], [0], [2]), "source span 1 starts before its predecessor ends"),
        ((ONE, [-1], [2], [0], [2]), "span 0 of the source starts at -1"),
        ((ONE, [0], [2], [2], [1]), "span 0 of the target starts at 2"),
        ((ONE, [0], [2, 3], [0], [2]), "source starts and ends have shapes"),
    ],
)
def test_spans_that_do_not_fit_are_refused(arguments: tuple[object, ...], message: str) -> None:
    weights, *spans = arguments
    with pytest.raises(SpanError, match=message):
        project(weights, *(np.array(edge) for edge in spans))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source_groups", "target_groups", "message"),
    [
        ([0, 1], None, "give both"),
        ([1, 0], [0, 0], "run backwards"),
        ([0], [0, 0], r"source_groups have shape \(1,\) for 2 spans"),
    ],
)
def test_groups_that_do_not_fit_are_refused(
    source_groups: list[int], target_groups: list[int] | None, message: str
) -> None:
    edges = np.array([0, 1]), np.array([1, 2])
    with pytest.raises(SpanError, match=message):
        project(
            np.ones(2, np.float32),
            *edges,
            *edges,
            source_groups=np.array(source_groups),
            target_groups=None if target_groups is None else np.array(target_groups),
        )


def test_a_thousand_rows_of_two_hundred_tokens_take_less_than_a_second() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 8, (1000, 200))
    ends = sizes.cumsum(axis=1)
    source = ((ends - sizes).ravel(), ends.ravel())
    rows = np.repeat(np.arange(1000), 200)
    merged = (source[0][::2], source[1][1::2])  # the target joins two tokens into one
    weights = rng.uniform(1, 5, 200_000).astype(np.float32)
    begin = time.process_time()
    got = project(weights, *source, *merged, source_groups=rows, target_groups=rows[::2])
    assert time.process_time() - begin < 1
    pairs = sizes.ravel().reshape(-1, 2)
    assert_allclose(got, (weights.reshape(-1, 2) * pairs).sum(axis=1) / pairs.sum(axis=1), rtol=1e-6)


def test_a_source_without_bytes_gives_its_weight_to_nobody() -> None:
    """A stop token at the end of its turn: the next turn begins where it lies."""
    weights = np.array([2, 9, 4, 9], np.float32)
    starts, ends, groups = np.array([0, 3, 0, 4]), np.array([3, 3, 4, 4]), np.array([0, 0, 1, 1])
    found = project(
        weights, starts, ends, np.array([0, 2, 0, 3]), np.array([2, 3, 3, 4]),
        source_groups=groups, target_groups=np.array([0, 0, 1, 1]),
    )  # fmt: skip
    np.testing.assert_array_equal(found, [2, 2, 4, 4])
    with np.errstate(all="raise"):
        nan = project(np.array([2, np.nan], np.float32), starts[:2], ends[:2], np.array([0]), np.array([3]))
    np.testing.assert_array_equal(nan, [2])
