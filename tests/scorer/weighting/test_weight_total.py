"""The total of a dataset's weights: exact, in whatever parts and order it is added up."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorer.weighting.weight_total import ExactTotal, WeightTotal

weights = st.lists(st.floats(0, 2.0**100, width=32), max_size=30)
"""Of any size: subnormal, 0, and far apart, as float sums are least exact."""


def total(*parts: list[float]) -> WeightTotal:
    found = ExactTotal()
    for part in parts:
        found.add(np.array(part, np.float32))
    return found.rounded


@given(st.lists(weights, max_size=5), st.randoms())
def test_the_sum_is_exact_in_any_parts_and_order(parts: list[list[float]], random: Any) -> None:
    whole = [value for part in parts for value in part]
    expected = WeightTotal(float(sum(map(Fraction, whole), Fraction())), len(whole))
    assert total(*parts) == expected
    random.shuffle(whole)
    assert total(whole) == expected


def test_a_float_sum_would_depend_on_the_order() -> None:
    """Negative control."""
    values = [2.0**54, 1.0, 1.0] * 100
    assert reduce(add, values) != reduce(add, sorted(values))
    assert total(values) == total(sorted(values))


@given(st.lists(weights, max_size=5), st.randoms())
def test_totals_merge_in_any_order(parts: list[list[float]], random: Any) -> None:
    totals = [total(part) for part in parts]
    merged = WeightTotal.merged(totals)
    random.shuffle(totals)
    assert WeightTotal.merged(totals) == merged
    assert merged.tokens == sum(map(len, parts))
    assert merged.sum == pytest.approx(math.fsum(value for part in parts for value in part))


@given(weights)
def test_a_total_survives_json(values: list[float]) -> None:
    found = total(values)
    assert WeightTotal.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_the_mean() -> None:
    assert total([1, 2], [6]).mean == 3
    assert math.isnan(total().mean)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="1 of 2 weights are NaN or infinite"):
        total([1, value])


DAMAGED = [
    None,
    {},
    {"sum": 1.0},
    {"sum": 1, "tokens": 1},
    {"sum": 1.0, "tokens": 1.0},
    {"sum": -1.0, "tokens": 1},
    {"sum": math.nan, "tokens": 1},
    {"sum": 1.0, "tokens": -1},
    {"sum": "1", "tokens": True},
]


@pytest.mark.parametrize("document", DAMAGED)
def test_a_damaged_total_is_refused(document: Any) -> None:
    with pytest.raises(ValueError, match="the total of its weights is"):
        WeightTotal.from_dict(document)
