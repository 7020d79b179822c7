"""The colour scale and the histogram: no value is lost, none changes its sign or its order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report.chart import HEIGHT, WIDTH, histogram
from scorer.display.levels import gap_level, signed, weight_level


@pytest.mark.parametrize(
    ("times", "level"),
    [(1, 0), (1.2, 0), (1.3, 1), (1.9, 1), (2.1, 2), (4.9, 2), (5.1, 3), (19, 3), (21, 4), (1e9, 4)],
)
def test_a_gaps_colour_says_how_many_times_likelier(times: float, level: int) -> None:
    assert gap_level(math.log(times)) == level
    assert gap_level(-math.log(times)) == -level  # the other hue, never the same one


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_a_higher_gap_never_has_a_lower_colour(one: float, other: float) -> None:
    assert (gap_level(one) - gap_level(other)) * (one - other) >= 0


def test_the_colour_of_what_is_undefined_is_neutral() -> None:
    assert gap_level(math.nan) == 0
    assert weight_level(math.nan, 1, 5) == 0
    assert weight_level(1.0, 1, 1) == 0


def test_weights_are_coloured_by_their_place_in_the_range() -> None:
    assert [weight_level(w, 1, 5) for w in (0.5, 1, 1.79, 1.81, 3, 4.9, 5, 9)] == [0, 0, 0, 1, 2, 4, 4, 4]


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=300))
def test_every_value_is_in_one_bar(values: list[float]) -> None:
    chart = histogram(np.array(values, np.float32))
    assert sum(int(bar.label.split(": ")[1].split()[0].replace(",", "")) for bar in chart.bars) == len(values)
    assert chart.below == sum(value < chart.low for value in values)
    assert chart.above == sum(value > chart.high for value in values)
    assert all(0 <= bar.x <= bar.x + bar.width <= WIDTH and bar.height > 0 for bar in chart.bars)
    assert all(0 <= bar.y <= bar.y + bar.height <= HEIGHT for bar in chart.bars)
    assert chart.low <= 0 < chart.high
    assert len(chart.bars) <= 60


def test_bars_stand_where_their_values_are() -> None:
    chart = histogram(np.array([-4.0] * 10 + [0.01] * 1000 + [3.5] * 100, np.float32))
    low, middle, high = chart.bars
    assert low.x < middle.x < high.x
    assert low.x + low.width <= chart.zero <= middle.x + 0.01
    assert low.y > high.y > middle.y  # fewer values, lower bar
    assert (low.level, middle.level, high.level) == (-4, 0, 4)


def test_a_tail_is_clipped_and_counted() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(0, 1, 10_000), [-900.0, 800.0, 900.0]])
    chart = histogram(values.astype(np.float32))
    assert -8 < chart.low < -3 and 3 < chart.high < 8
    assert chart.below == int((values < chart.low).sum()) and chart.above == int((values > chart.high).sum())
    assert chart.below >= 1 and chart.above >= 2


def test_undefined_values_are_left_out() -> None:
    chart = histogram(np.array([1.0, math.nan, math.inf, 1.0], np.float32))
    assert [bar.label.split(": ")[1] for bar in chart.bars] == ["2 tokens"]


def test_signed_numbers() -> None:
    assert [signed(value) for value in (1.5, -1.5, 0.001, -0.001, math.nan)] == ["+1.50", "−1.50", "0.00", "0.00", "–"]
