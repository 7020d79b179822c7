"""The fast path's first batch is held against two full passes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scorer.forward import LabelScores
from scorer.forward.self_check import TOLERANCE, compare

NAN = math.nan


def pair(*logits: float, logprob: float = -1.0) -> tuple[LabelScores, LabelScores]:
    values = np.array(logits, dtype=np.float32)
    return LabelScores(values, values), LabelScores(values + 1, np.full_like(values, logprob))


def test_equal_scores_pass_with_no_difference() -> None:
    verdict = compare([pair(1, 2), pair(3)], [pair(1, 2), pair(3)], "float32")
    assert verdict.passed
    assert verdict.difference == 0


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
def test_the_limit_grows_with_the_largest_logit(dtype: str) -> None:
    verdict = compare([pair(99)], [pair(99)], dtype)  # the contrast's logit is 100
    assert verdict.limit == pytest.approx(100 * TOLERANCE[dtype])
    assert compare([pair(99 + 0.9 * verdict.limit)], [pair(99)], dtype).passed
    assert not compare([pair(99 + 1.1 * verdict.limit)], [pair(99)], dtype).passed


def test_a_difference_in_the_contrast_alone_counts() -> None:
    verdict = compare([pair(1, logprob=-2.0)], [pair(1, logprob=-1.0)], "bfloat16")
    assert verdict.difference == 1
    assert not verdict.passed


def test_nan_on_one_side_never_passes_and_on_both_is_equal() -> None:
    assert not compare([pair(NAN, 1)], [pair(1, 1)], "bfloat16").passed
    assert not compare([pair(1, 1)], [pair(NAN, 1)], "bfloat16").passed
    assert compare([pair(NAN, 1)], [pair(NAN, 1)], "bfloat16").passed


def test_the_same_infinity_on_both_sides_is_equal_and_does_not_widen_the_limit() -> None:
    infinite = math.inf
    verdict = compare([pair(infinite, 1)], [pair(infinite, 1)], "float32")
    assert verdict.passed
    assert verdict.limit == pytest.approx(2 * TOLERANCE["float32"])
    assert not compare([pair(infinite, 1.1)], [pair(infinite, 1)], "float32").passed
    for other in (1.0, -infinite, NAN):
        assert not compare([pair(other, 1)], [pair(infinite, 1)], "bfloat16").passed
        assert not compare([pair(infinite, 1)], [pair(other, 1)], "bfloat16").passed
