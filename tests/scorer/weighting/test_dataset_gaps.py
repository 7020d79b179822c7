"""The dataset's gaps: exact counts, in any order, and thresholds that keep what they say."""

from __future__ import annotations

import json
import math
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorer.weighting.dataset_gaps import DatasetGaps, Histogram, row_mean

gaps = st.floats(-40, 40)
many = st.lists(gaps, min_size=1, max_size=60)
shares = st.integers(1, 100).map(lambda percent: percent / 100)


def histogram(values: list[float]) -> Histogram:
    return Histogram.of(np.array(values, np.float64))


@given(many, shares)
def test_a_threshold_keeps_the_share_that_it_says_and_no_bin_more(values: list[float], share: float) -> None:
    threshold, kept = histogram(values).top(share)
    reached = [value for value in values if value >= threshold]
    assert len(reached) / len(values) == kept >= share
    wanted = sorted(values, reverse=True)[math.ceil(share * len(values) - 1e-9) - 1]  # the exact quantile
    assert threshold <= wanted
    assert wanted - threshold <= max(abs(wanted) / 64, 2 / 1024)


@given(st.lists(many, min_size=1, max_size=6), st.randoms())
def test_parts_add_up_in_any_order(parts: list[list[float]], random: Any) -> None:
    whole = histogram([value for part in parts for value in part])
    random.shuffle(parts)
    merged = reduce(add, map(histogram, parts))
    assert merged == whole
    assert json.dumps(merged.to_dict()) == json.dumps(whole.to_dict())


def test_a_sample_of_the_values_would_depend_on_the_order() -> None:
    """Negative control: what the comparison above must tell apart."""
    kept = [values[::2] for values in ([1.0, 2.0, 3.0], [3.0, 1.0, 2.0])]
    assert histogram(kept[0]) != histogram(kept[1])


@given(many)
def test_a_histogram_survives_json(values: list[float]) -> None:
    found = histogram(values)
    assert Histogram.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert found.total == len(values)


@given(gaps, gaps)
def test_bins_are_in_the_order_of_their_values(a: float, b: float) -> None:
    low, high = sorted((a, b))
    ((first, _),), ((second, _),) = histogram([low]).counts.items(), histogram([high]).counts.items()
    assert first <= second


def test_bins_by_hand() -> None:
    assert histogram([0.0, -0.0, 0.0009, -0.0009]).counts == {0: 4}
    assert histogram([2**-10, -(2**-10)]).counts == {-1: 1, 1: 1}
    assert histogram([1.0, 2.0]).counts == {641: 1, 705: 1}  # ten and eleven octaves above the smallest
    assert histogram([1.0, 2.0, 3.0]).top(0.5) == (2.0, 2 / 3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_bin(value: float) -> None:
    with pytest.raises(ValueError, match="1 of 2 values are NaN or infinite"):
        histogram([1.0, value])


def test_nothing_has_no_threshold() -> None:
    with pytest.raises(ValueError, match="no values were counted"):
        Histogram().top(0.5)


DAMAGED = [
    None,
    {},
    {"bins": [1], "counts": [1, 2]},
    {"bins": [2, 1], "counts": [1, 1]},
    {"bins": [1, 1], "counts": [1, 1]},
    {"bins": [1], "counts": [0]},
    {"bins": [1], "counts": [True]},
    {"bins": [1.5], "counts": [1]},
    {"bins": "1", "counts": "1"},
]


@pytest.mark.parametrize("document", DAMAGED)
def test_a_damaged_histogram_is_refused(document: Any) -> None:
    with pytest.raises(ValueError, match="a histogram"):
        Histogram.from_dict(document)


def test_rows_are_counted_by_their_mean() -> None:
    found = DatasetGaps.of(np.array([1.0, 3.0, 0.5, 0.5, -1.0]), np.array([0, 2, 2, 5]))
    assert found.tokens == histogram([1.0, 3.0, 0.5, 0.5, -1.0])
    assert found.rows == histogram([2.0, 0.0])  # the row between them has no tokens
    assert DatasetGaps.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert found + DatasetGaps() == found
    with pytest.raises(ValueError, match="not two histograms"):
        DatasetGaps.from_dict([])


@given(many)
def test_a_rows_mean_does_not_depend_on_rounding_order(values: list[float]) -> None:
    assert row_mean(np.array(values)) == row_mean(np.array(values[::-1]))
