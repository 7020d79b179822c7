"""Areas, rank correlations and intervals, each against a plain rendering."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorer.statistics import Estimate, auroc, bootstrap, rank_correlation

small = st.lists(st.integers(-3, 3), min_size=1, max_size=20)


@given(small, small)
def test_auroc_is_the_share_of_pairs_in_order(high: list[int], low: list[int]) -> None:
    pairs = [1.0 if h > l else 0.5 if h == l else 0.0 for h in high for l in low]  # noqa: E741
    assert auroc(high, low) == pytest.approx(np.mean(pairs))


def test_auroc_of_nothing_is_undefined() -> None:
    assert np.isnan(auroc([], [1.0]))
    assert np.isnan(auroc([1.0], []))


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=20))
def test_rank_correlation_is_pearsons_of_mean_ranks(pairs: list[tuple[int, int]]) -> None:
    columns = [list(column) for column in zip(*pairs, strict=True)]
    ranks = [[np.mean([i for i, w in enumerate(sorted(c), 1) if w == v]) for v in c] for c in columns]
    found = rank_correlation(*columns)
    if len(set(columns[0])) == 1 or len(set(columns[1])) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(np.corrcoef(ranks)[0, 1])


def test_rank_correlation_of_nothing_is_undefined() -> None:
    assert math.isnan(rank_correlation([], []))


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(200):
        values = rng.normal(3.0, 1.0, 60)
        found = bootstrap(len(values), lambda rows, v=values: float(v[rows].mean()), resamples=200, seed=seed)
        assert found.low <= found.value <= found.high
        inside += found.low <= 3.0 <= found.high
    assert 0.88 <= inside / 200 <= 0.99


def test_an_interval_is_seeded() -> None:
    values = np.arange(30.0)
    first, again, other = (bootstrap(30, lambda rows: float(values[rows].mean()), seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_resamples_without_the_figure_are_left_out() -> None:
    values = np.array([1.0, math.nan])
    found = bootstrap(2, lambda rows: float(values[rows].mean()) if 1 not in rows else math.nan)
    assert (found.low, found.high) == (1.0, 1.0)
    assert not found.known


def test_nothing_has_no_estimate() -> None:
    found = bootstrap(0, lambda rows: 1.0)
    assert found.count == 0
    assert not found.known
    assert Estimate(1.0, 0.9, 1.1, 5).known
