"""Raw scores keep as many bits as asked for, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scorer import ScorerConfig, TokenScores
from scorer.columns import of_contrast
from scorer.config import ALL_BITS
from scorer.engine import Scorer
from scorer.score_bits import rounded
from tests.scorer.scoring import load, samples

VALUES = np.concatenate(
    [
        np.random.default_rng(0).normal(scale=8, size=20_000),
        [0.0, -0.0, 1e-30, 65504.0, -17.25, 2.0**-14],
    ]
).astype(np.float32)


def scores(values: np.ndarray, **changes: Any) -> TokenScores:
    count = len(values)
    spans = np.arange(count, dtype=np.int32)
    found = TokenScores("a", spans, spans, spans + 1, np.zeros(count, np.int16), "0" * 32, values, values, values)
    return replace(found, **changes)


@pytest.mark.parametrize("bits", [1, 7, 10, 16, 22])
def test_each_bit_halves_the_error_and_ends_in_zeros(bits: int) -> None:
    for name in ("logit_gap", "logprob_clean", "logprob_contrast"):
        kept = getattr(rounded(scores(VALUES), bits), name)
        assert kept.dtype == np.float32
        assert not (kept.view(np.uint32) & np.uint32(2 ** (ALL_BITS - bits) - 1)).any()
        error = np.abs(kept.astype(np.float64) - VALUES) / np.maximum(np.abs(VALUES.astype(np.float64)), 1e-300)
        assert 0.35 * 2.0**-bits < error.max() <= 0.5 * 2.0**-bits


def test_ten_bits_are_the_precision_of_float16() -> None:
    """Where float16 has all its bits, its rounding, ties included, is this one."""
    ties = np.arange(2048, 8192, dtype=np.float32) / 2
    values = np.concatenate([VALUES[(np.abs(VALUES) > 2.0**-13) & (np.abs(VALUES) < 60000)], ties])
    kept = rounded(scores(values), 10).logit_gap
    np.testing.assert_array_equal(kept, values.astype(np.float16).astype(np.float32))
    assert (kept != values).any()


def test_what_is_not_finite_stays_and_so_does_every_other_column() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 1 / 3], np.float32)
    values[0] = np.frombuffer(b"\xff\xff\xff\x7f", np.float32)[0]  # a NaN that rounding up would make a zero
    whole = np.array([123456789] * 4, np.int32)
    before = scores(values, optional={"another": whole})
    after = rounded(before, 5)
    np.testing.assert_array_equal(after.logit_gap[:3], values[:3])
    assert after.logit_gap[3] != values[3]
    assert after.optional["another"] is whole
    assert (after.sample_id, after.text_hash) == (before.sample_id, before.text_hash)
    for name in ("token_ids", "token_starts", "token_ends", "token_turns"):
        assert getattr(after, name) is getattr(before, name)


def test_a_further_contrast_s_scores_are_rounded_too() -> None:
    more = {column.name: VALUES + np.float32(1) for column in of_contrast("masked")}
    after = rounded(scores(VALUES, optional=more), 10).optional
    assert list(after) == list(more)
    for name, values in more.items():
        assert (after[name] != values).any()
        np.testing.assert_allclose(after[name], values, rtol=2**-11)


def test_all_bits_change_nothing() -> None:
    before = scores(VALUES)
    assert rounded(before, ALL_BITS) is before


@pytest.mark.parametrize("batches", [False, True])
def test_a_scorer_rounds_what_it_returns(chatml_model: Path, batches: bool) -> None:
    def score(scorer: Scorer) -> list[TokenScores]:
        rows = [scorer.encoder.encode(sample) for sample in samples()[:6]]
        found = scorer.score_batches(rows, 4096) if batches else scorer.score_encoded(rows)
        return [one for one in found if isinstance(one, TokenScores)]

    full, fewer = score(load(chatml_model)), score(load(chatml_model, score_bits=10))
    assert len(full) == len(fewer) == 6
    for one, less in zip(full, fewer, strict=True):
        expected = rounded(one, 10)
        for name in ("logit_gap", "logprob_clean", "logprob_contrast"):
            np.testing.assert_array_equal(getattr(less, name), getattr(expected, name))
            assert (getattr(less, name) != getattr(one, name)).any()
    assert ScorerConfig().score_bits == ALL_BITS
