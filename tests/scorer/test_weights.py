"""Every formula against its naive form, and the properties that a trainer relies on."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from scorer.errors import ConfigError
from scorer.results import TokenScores
from scorer.types import Float32Array, Int16Array
from scorer.weights import METHODS, Method, cal, cal_logprob, clamp_and_pool, grounded, prior, vig_row
from tests.methods import ready

gaps = st.floats(-30, 30, width=32)
logprobs = st.floats(-20, 0, width=32)


def scores_of(
    gap: list[float] | Float32Array,
    turns: list[int] | None = None,
    clean: list[float] | None = None,
    contrast: list[float] | None = None,
) -> TokenScores:
    n = len(gap)
    positions = np.arange(n, dtype=np.int32)
    return TokenScores(
        "s",
        positions,
        positions,
        positions + 1,
        np.array([0] * n if turns is None else turns, np.int16),
        "hash",
        np.asarray(gap, np.float32),
        np.array([-1.0] * n if clean is None else clean, np.float32),
        np.array([-2.0] * n if contrast is None else contrast, np.float32),
    )


@st.composite
def scores(draw: st.DrawFn, min_size: int = 0) -> TokenScores:
    sizes = draw(st.lists(st.integers(1, 8), max_size=4).filter(lambda s: sum(s) >= min_size))
    turns = [turn for turn, size in enumerate(sizes) for _ in range(size)]
    columns = [draw(st.lists(kind, min_size=len(turns), max_size=len(turns))) for kind in (gaps, logprobs, logprobs)]
    return scores_of(columns[0], turns, columns[1], columns[2])


def naive_pool(gap: Float32Array, turns: Int16Array, low: float, high: float, window: int) -> list[float]:
    out = []
    for t in range(len(gap)):
        around = range(max(0, t - window // 2), min(len(gap), t + window // 2 + 1))
        out.append(float(np.mean([min(max(gap[s], low), high) for s in around if turns[s] == turns[t]])))
    return out


def flattened_pool(gap: Float32Array) -> Float32Array:
    """CAL's code: one pooling over everything in the batch, whatever it belongs to."""
    clamped = np.clip(gap, 1, 5)
    return np.array([clamped[max(0, t - 1) : t + 2].mean() for t in range(len(gap))], np.float32)


@given(scores(), st.sampled_from([1, 3, 5, 7]), st.floats(0, 2), st.floats(0, 4))
def test_pooling_equals_its_naive_form(s: TokenScores, window: int, low: float, extra: float) -> None:
    got = clamp_and_pool(s.logit_gap, s.token_turns, low, low + extra, window)
    assert got.dtype == np.float32
    assert_allclose(got, naive_pool(s.logit_gap, s.token_turns, low, low + extra, window), rtol=1e-6, atol=1e-6)


def test_cal_by_hand() -> None:
    assert_allclose(cal(scores_of([-3, 2, 9, 4])), [1.5, 8 / 3, 11 / 3, 4.5], rtol=1e-6)


@given(scores())
def test_cal_lies_within_its_bounds(s: TokenScores) -> None:
    for weights in (cal(s), cal_logprob(s), cal(s, low=0.1, high=0.3, window=5)):
        assert np.all((weights >= np.float32(0.1)) & (weights <= 5))
    assert np.all(cal(s) >= 1)


@given(st.lists(st.lists(gaps, min_size=1, max_size=6), min_size=2, max_size=4), st.randoms())
def test_turns_do_not_see_each_other(turns: list[list[float]], random: Any) -> None:
    """Shuffling the turns shuffles the weights and changes none."""
    order = list(range(len(turns)))
    random.shuffle(order)

    def pooled(arranged: list[list[float]]) -> list[list[float]]:
        index = [i for i, turn in enumerate(arranged) for _ in turn]
        weights = cal(scores_of([gap for turn in arranged for gap in turn], index))
        return [weights[np.array(index) == i].tolist() for i in range(len(arranged))]

    assert pooled([turns[i] for i in order]) == [pooled(turns)[i] for i in order]
    assert pooled(turns) == [pooled([turn])[0] for turn in turns]


def test_flattened_pooling_differs_at_turn_edges_and_only_there() -> None:
    """Negative control: the authors' pooling over the flattened batch is what these tests must tell apart."""
    gap = np.array([5, 5, 5, 1, 1, 1], np.float32)
    ours = cal(scores_of(gap, [0, 0, 0, 1, 1, 1]))
    differs = flattened_pool(gap) != ours
    assert differs.tolist() == [False, False, True, True, False, False]
    assert ours.tolist() == [5, 5, 5, 1, 1, 1]


@given(st.lists(gaps, min_size=1, max_size=20))
def test_within_one_turn_flattened_pooling_is_the_same(gap: list[float]) -> None:
    assert_allclose(cal(scores_of(gap)), flattened_pool(np.array(gap, np.float32)), rtol=1e-6)


def test_cal_logprob_is_blind_to_a_shift_of_all_logits() -> None:
    shifted = scores_of([7, 7], clean=[-1, -3], contrast=[-5, -3])
    assert cal(shifted).tolist() == [5, 5]
    assert cal_logprob(shifted, window=1).tolist() == [4, 1]


@given(scores(min_size=1), st.floats(0, 4))
def test_prior_equals_its_naive_form_and_has_mean_one(s: TokenScores, alpha: float) -> None:
    weights = prior(s, alpha=alpha)
    assert weights.dtype == np.float32
    assert np.all(weights >= 0)
    assert float(np.mean(weights, dtype=np.float64)) == pytest.approx(1, abs=1e-5)
    surprises = [1 - math.exp(logprob) for logprob in s.logprob_contrast.tolist()]
    naive = [surprise**alpha for surprise in surprises]
    if min(surprises) > 1e-6 and min(naive) > 1e-6:  # 1 - exp has digits left
        assert_allclose(weights, np.array(naive) * len(naive) / sum(naive), rtol=1e-5)


def test_prior_falls_with_the_probability_without_the_picture() -> None:
    weights = prior(scores_of([0, 0, 0], contrast=[-0.01, -1.0, -9.0]))
    assert weights[0] < weights[1] < weights[2]


def test_prior_of_certain_tokens_is_uniform() -> None:
    assert prior(scores_of([0, 0], contrast=[0.0, 0.0])).tolist() == [1, 1]
    assert prior(scores_of([0, 0], contrast=[0.0, -1.0])).tolist() == [0, 2]
    assert len(prior(scores_of([]))) == 0


def test_prior_survives_what_float_arithmetic_does() -> None:
    near_certain = prior(scores_of([0, 0], contrast=[-1e-12, -3e-12]))  # 1 - exp would give 0/0
    assert_allclose(near_certain, [0.5, 1.5], rtol=1e-5)
    steep = prior(scores_of([0, 0], contrast=[-1e-3, -2e-3]), alpha=200)  # every (1 - p)**α underflows to 0
    assert_allclose(steep, [0, 2], atol=1e-6)
    assert prior(scores_of([0, 0], contrast=[1e-7, -1.0])).tolist() == [0, 2]  # rounded above probability 1


@given(scores(), st.integers(1, 100))
def test_vig_row_keeps_the_stated_share_of_highest_gain(s: TokenScores, percent: int) -> None:
    kept = vig_row(s, keep=percent / 100).astype(bool)
    assert kept.sum() == math.ceil(Decimal(percent) / 100 * len(kept))
    gain = s.logprob_clean.astype(np.float64) - s.logprob_contrast
    assert not kept.any() or kept.all() or gain[kept].min() >= gain[~kept].max()


def test_vig_row_counts_in_decimals() -> None:
    assert 0.07 * 100 > 7  # whose ceiling would keep eight of a hundred
    assert vig_row(scores_of([0] * 100), keep=0.07).sum() == 7


@given(scores(), st.floats(-5, 5))
def test_vig_row_threshold(s: TokenScores, threshold: float) -> None:
    gain = s.logprob_clean.astype(np.float64) - s.logprob_contrast
    assert_array_equal(vig_row(s, threshold=threshold), [1.0 if g >= threshold else 0.0 for g in gain])


def test_vig_row_keeps_the_earlier_of_equal_tokens() -> None:
    ties = scores_of([0] * 4, clean=[-1, -2, -1, -1], contrast=[-3, -3, -3, -3])
    assert vig_row(ties, keep=0.5).tolist() == [1, 0, 1, 0]
    many = scores_of([0] * 1000, clean=[-1, -2] * 500, contrast=[-3] * 1000)  # enough for an unstable sort to show
    assert np.flatnonzero(vig_row(many, keep=0.1)).tolist() == list(range(0, 200, 2))


def test_vig_row_is_shown_the_log_probabilities_only() -> None:
    assert vig_row(scores_of([9, -9], clean=[-2, -1], contrast=[-2, -2]), keep=0.5).tolist() == [0, 1]


def naive_grounded(clean: float, contrast: float, k: float, epsilon: float) -> float:
    """The two acceptance probabilities, in words: draw without and keep; draw with, and would it have been kept?"""
    with_image, without = math.exp(clean) + epsilon, math.exp(contrast) + epsilon
    kept = 1.0 if with_image >= without else with_image / without
    brought = 1.0 - without / with_image if with_image > without else 0.0
    return kept + k * brought


@given(scores(), st.floats(0, 20), st.floats(1e-6, 1))
def test_grounded_equals_its_naive_form(s: TokenScores, k: float, epsilon: float) -> None:
    weights = grounded(s, k=k, epsilon=epsilon)
    assert weights.dtype == np.float32
    pairs = zip(s.logprob_clean.tolist(), s.logprob_contrast.tolist(), strict=True)
    assert_allclose(weights, [naive_grounded(*pair, k, epsilon) for pair in pairs], rtol=1e-5, atol=1e-6)


def test_the_naive_form_sees_a_missing_epsilon() -> None:
    """Negative control: an unsmoothed ratio punishes and rewards what the reference cannot read."""
    assert naive_grounded(-12, -9, 4, 0.001) == pytest.approx(0.895, abs=1e-3)
    assert naive_grounded(-12, -9, 4, 0) == pytest.approx(0.0498, abs=1e-3)
    assert naive_grounded(-9, -12, 4, 0) == pytest.approx(4.80, abs=1e-2)


probability = st.floats(0, 1)


def of_probabilities(clean: list[float], contrast: list[float]) -> TokenScores:
    with np.errstate(divide="ignore"):
        return scores_of([0] * len(clean), None, np.log(clean).tolist(), np.log(contrast).tolist())


@given(st.floats(0, 0.1), st.lists(probability, min_size=1), st.lists(probability, min_size=1), st.floats(0, 20))
def test_grounded_tends_to_uniform_where_the_reference_knows_nothing(
    most: float, clean: list[float], contrast: list[float], k: float
) -> None:
    count = min(len(clean), len(contrast))
    s = of_probabilities([most * p for p in clean[:count]], [most * p for p in contrast[:count]])
    weights = grounded(s, k=k)
    assert np.all(np.abs(weights - 1) <= max(1, k) * most / (most + 0.001) + 1e-5)


def test_a_token_that_is_impossible_with_and_without_the_image_weighs_1() -> None:
    assert grounded(scores_of([0], clean=[-math.inf], contrast=[-math.inf])).tolist() == [1]


@given(scores(), st.floats(0, 20), st.floats(1e-6, 1))
def test_grounded_lies_within_its_bounds(s: TokenScores, k: float, epsilon: float) -> None:
    weights = grounded(s, k=k, epsilon=epsilon).astype(np.float64)
    assert np.all(weights >= epsilon / (1 + epsilon) * (1 - 1e-6))
    assert np.all(weights <= (1 + k / (1 + epsilon)) * (1 + 1e-6))


@given(probability, probability, probability, st.floats(0, 20))
def test_grounded_rises_with_the_image_and_falls_without(p: float, q: float, other: float, k: float) -> None:
    low, high = sorted((p, other))
    with_image = grounded(of_probabilities([low, high], [q, q]), k=k)
    without = grounded(of_probabilities([q, q], [low, high]), k=k)
    assert with_image[0] <= with_image[1]
    assert without[0] >= without[1]


def test_grounded_orders_contradicted_filler_and_visual_words() -> None:
    weights = grounded(of_probabilities([0.001, 0.9, 0.9], [0.3, 0.9, 0.1]))
    assert_allclose(weights, [0.00664, 1, 4.551], rtol=1e-3)


@given(scores(), st.randoms())
def test_grounded_weighs_every_token_alone(s: TokenScores, random: Any) -> None:
    whole = grounded(s)
    assert all(grounded(without(s, i)).tolist() == np.delete(whole, i).tolist() for i in range(len(whole)))


def test_grounded_survives_log_probabilities_above_0() -> None:
    assert grounded(scores_of([0, 0], clean=[3e38, 1e-7], contrast=[0, 0])).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("cal", [2, np.nan, np.nan, np.nan, 2]),
        ("cal-logprob", [1, np.nan, np.nan, np.nan, 1]),
        ("prior", [np.nan] * 5),
        ("vig", [np.nan] * 5),
        ("vig-row", [1, 1, np.nan, 1, 0]),
        ("top-tokens", [1, 1, np.nan, 1, 1]),
        ("vppo", [1, 1, np.nan, 0, 0]),
        ("pgpo", [np.nan] * 5),
        ("tpo", [1.3807971, 1.3807971, np.nan, 1.3807971, 1.3807971]),
        ("grounded", [3.5216277, 3.5216277, np.nan, 3.5216277, 3.5216277]),
    ],
)
def test_what_depends_on_a_nan_is_nan(method: str, expected: list[float]) -> None:
    nan = math.nan
    s = scores_of([2, 2, nan, 2, 2], clean=[-1, -1, nan, -1, -1], contrast=[-2, -2, nan, -2, -2])
    assert_allclose(ready(method)(s), np.array(expected, np.float32), rtol=1e-7)


def test_two_impossible_tokens_have_no_defined_gain() -> None:
    s = scores_of([0, 0], clean=[-math.inf, -1], contrast=[-math.inf, -2])
    assert_array_equal(vig_row(s, keep=1.0), [np.nan, 1])


@pytest.mark.parametrize("name", METHODS)
def test_methods_round_trip_and_travel(name: str) -> None:
    method = Method(name)
    assert method == pickle.loads(pickle.dumps(method)) == Method.from_dict(json.loads(json.dumps(method.to_dict())))
    assert hash(method) == hash(Method(name))
    assert len(ready(name)(scores_of([]))) == 0
    assert ready(name)(scores_of([1, 2])).dtype == np.float32


def test_a_method_records_its_defaults_in_one_form() -> None:
    assert Method().to_dict() == {"name": "cal", "params": {"low": 1.0, "high": 5.0, "window": 3, "edges": "turn"}}
    assert Method("cal", {"low": 1, "window": 3.0}) == Method()
    assert json.dumps(Method("cal", {"low": 1}).to_dict()) == json.dumps(Method().to_dict())
    assert Method("cal", {"window": 3.0})(scores_of([2, 4])).tolist() == [3, 3]
    assert Method("cal", {"window": 1})(scores_of([2, 4])).tolist() == [2, 4]


def test_a_method_keeps_its_own_parameters() -> None:
    params = {"low": 2.0}
    method = Method("cal", params)
    params["low"] = 77.0
    assert method.params["low"] == 2.0


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        (
            "calm",
            {},
            f"unknown weighting method 'calm'; known methods: {', '.join(METHODS)}",
        ),
        (["cal"], {}, "unknown weighting method"),
        ("cal", {"alpha": 1}, "method 'cal' has no parameter alpha; it has low, high, window, edges"),
        ("cal", ["low"], "parameters are .*; give a mapping"),
        ("cal", {"low": math.nan}, "low is nan; it must be a finite number"),
        ("cal", {"high": math.inf}, "high is inf; it must be a finite number"),
        ("cal", {"high": 10**400}, "; it must be a finite number"),
        ("cal", {"low": "1"}, "low is '1'; it must be a finite number"),
        ("cal", {"low": True}, "low is True; it must be a finite number"),
        ("cal", {"low": 6}, "low is 6.0 and high is 5.0; low ≤ high must hold: lower low or raise high"),
        ("cal", {"low": -1}, "low is -1.0; it must be 0 or more"),
        ("cal", {"window": 2}, "window is 2; it must be an odd number"),
        ("cal", {"window": 2.5}, "window is 2.5; it must be an odd number"),
        ("cal", {"window": -1}, "window is -1; it must be an odd number"),
        ("cal", {"edges": "batch"}, "edges is 'batch'; it must be turn or paper"),
        ("cal", {"edges": 1}, "edges is 1; it must be turn or paper"),
        ("cal", {"edges": None}, "edges is null; it must be turn or paper"),
        ("prior", {"alpha": -0.1}, "alpha is -0.1; it must be 0 or more"),
        ("vig", {"keep": 0}, r"keep is 0.0; it must lie in \(0, 1\]"),
        ("vig-row", {"keep": 0}, r"keep is 0.0; it must lie in \(0, 1\]"),
        ("vig-row", {"keep": 1.5}, "keep is 1.5"),
        ("vig-row", {"keep": None}, "keep is null; it must be a finite number"),
        ("vig-row", {"threshold": math.nan}, "threshold is nan; it must be a finite number, or null for none"),
    ],
)
def test_a_wrong_method_is_refused(name: Any, params: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Method(name, params)


def test_a_window_wider_than_the_text_costs_no_more_than_the_text() -> None:
    s = scores_of([1, 2, 3, 4, 5], [0, 0, 0, 1, 1])
    assert_array_equal(cal(s, window=10**18 + 1), cal(s, window=9))


def with_stops(s: TokenScores, at: list[int]) -> TokenScores:
    return replace(s, optional={"is_stop": np.isin(np.arange(len(s.token_ids)), at)})


def without(s: TokenScores, at: int) -> TokenScores:
    names = ("token_ids", "token_starts", "token_ends", "token_turns", "logit_gap", "logprob_clean", "logprob_contrast")
    return replace(s, **{name: np.delete(getattr(s, name), at) for name in names})


@pytest.mark.parametrize("params", [{}, {"keep": 0.01}, {"keep": 1}, {"threshold": 0.5}])
def test_vig_row_keeps_the_stop_token_and_ranks_the_others_as_if_it_were_not_there(params: dict[str, Any]) -> None:
    for gap_of_stop in (-9.0, 0.0, 9.0):
        gaps_of = [0.1, 0.9, 0.6, gap_of_stop, 0.4, -0.2]
        s = scores_of([0] * 6, clean=gaps_of, contrast=[0] * 6)
        weights = vig_row(with_stops(s, [3]), **params)
        assert weights[3] == 1
        assert_array_equal(np.delete(weights, 3), vig_row(without(s, 3), **params))
    lowest = scores_of([0] * 6, clean=[0.1, 0.9, 0.6, -9, 0.4, -0.2], contrast=[0] * 6)
    assert vig_row(lowest)[3] == 0  # negative control: as a token like any other it would be dropped


def test_a_stop_token_that_is_undefined_is_nan() -> None:
    assert math.isnan(vig_row(with_stops(scores_of([0, 0], clean=[1, math.nan]), [1]))[1])


def test_the_other_methods_take_the_stop_token_like_any_other() -> None:
    s = scores_of([2, 4, 1], clean=[-1, -1, -1], contrast=[-0.1, -2, -3])
    for method in ("cal", "cal-logprob", "prior", "vppo", "pgpo", "tpo", "grounded"):
        assert_array_equal(Method(method)(with_stops(s, [2])), Method(method)(s))
    assert_allclose(cal(with_stops(s, [2])), [3, 7 / 3, 2.5], rtol=1e-6)  # its gap is in the window of the word before
    assert prior(with_stops(s, [2])).mean() == pytest.approx(1)
