"""Rows of every kind in random company, random budgets and random limits: each is scored as if it were alone.

Captions, questions, several images, images after labels, text alone; rows that share images, prompts and texts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL.Image import Image

from scorer import Sample, Scorer, ScorerConfig, TokenScores
from scorer.forward import packing
from scorer.results import Failure, Result
from scorer.types import IMAGE, EncodedSample, Turn
from tests.scorer.families.cases import MAKERS
from tests.scorer.scoring import picture

ROWS = 14
WORDS = ["A", "red", "kite", "boats", "over", "two", "three", "blue", "sky.", ",", "the", "of", "日本", "naïve"]
FIELDS = ("logit_gap", "logprob_clean", "logprob_contrast")


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def any_row(rng: random.Random, name: str, images: list[Image]) -> Sample:
    one, other = (rng.choice(images) for _ in range(2))
    kind = rng.random()
    if kind < 0.5:
        return Sample.caption(name, one, words(rng, rng.randint(1, 40)), contrast_image=other)
    if kind < 0.6:
        prompt = words(rng, rng.randint(0, 20))
        return Sample.caption(name, one, words(rng, rng.randint(1, 5)), prompt=prompt, contrast_image=other)
    answer = Turn("assistant", (words(rng, 6),))
    if kind < 0.7:
        return Sample(name, (), (Turn("user", ("Hi " + words(rng, 2),)), answer))
    if kind < 0.8:
        return Sample(name, (one, other), (Turn("user", ("x", IMAGE, "y", IMAGE, "?")), answer), (other, one))
    first, again = Turn("user", (IMAGE, "y")), Turn("assistant", (words(rng, rng.randint(2, 30)),))
    if kind < 0.9:
        return Sample(name, (one, other), (first, answer, Turn("user", (IMAGE, "z")), again), (other, one))
    return Sample(name, (one,), (first, answer, Turn("user", ("more?",)), again), (other,))


@pytest.mark.parametrize("contrast", ["blank", "masked", "blur"])
@pytest.mark.parametrize("name", sorted(MAKERS))
def test_each_row_is_scored_as_if_alone(
    name: str, contrast: str, checkpoint: Callable[[Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint(MAKERS[name])
    if contrast not in Scorer.load(path, ScorerConfig(device="cpu")).checkpoint.family.contrasts:
        pytest.skip("the family does not define it")
    scorer = Scorer.load(path, ScorerConfig(device="cpu", contrast=contrast))
    rng = random.Random(f"{name} {contrast}")
    images = [picture(rng.choice([20, 30, 50, 64]), rng.choice([20, 40, 50, 64]), seed) for seed in range(4)]
    rows = [scorer.encoder.try_encode(any_row(rng, str(i), images)) for i in range(ROWS)]
    assert sum(isinstance(row, EncodedSample) for row in rows) >= ROWS // 3
    monkeypatch.setattr(packing, "HELD_BUDGETS", rng.choice([1, 32]))
    monkeypatch.setattr(packing, "HELD_BYTES", rng.choice([3000, 2**28]))
    budget = rng.choice([1, 60, 200, 500, 16_384])
    arriving, listed = scorer.score_batches(iter(rows), budget), scorer.score_batches(rows, budget)
    kept = scorer.score_encoded(rows)
    scorer._fast = None
    for i, row in enumerate(rows):
        (alone,) = scorer.score_batches([row], budget)
        check(alone, arriving[i], exact=False)
        check(alone, kept[i], exact=False)
        check(listed[i], arriving[i], exact=True)


def check(expected: Result, result: Result, exact: bool) -> None:
    if isinstance(expected, Failure):
        assert result == expected
        return
    assert isinstance(result, TokenScores)
    for field in FIELDS:
        ours, theirs = getattr(result, field), getattr(expected, field)
        np.testing.assert_allclose(ours, theirs, atol=0 if exact else 2e-4, rtol=0, equal_nan=True)
