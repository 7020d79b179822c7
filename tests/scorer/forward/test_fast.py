"""The fast path gives the plain path's numbers, does less work, and steps back where it would not."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scorer import Sample, Scorer, TokenScores
from scorer.errors import BatchTooLargeError
from scorer.forward import FastPath, fast, prefix, score_two_forwards
from scorer.forward.model import ReferenceModel
from scorer.types import EncodedSample, Usage
from tests.scorer.scoring import CONTRASTS, TEXTS, TOLERANCE, load, picture, samples


def captions_of_one_image(count: int = 5, seed: int = 0) -> list[Sample]:
    image = picture(40, 30, seed)
    return [Sample.caption(f"{seed}-{i}", image, "A red kite over boats. " * (1 + i % 3)) for i in range(count)]


def questions(count: int = 4) -> list[Sample]:
    """One image, other prompts: rows share the image but not the whole prompt."""
    image = picture(40, 30, 50)
    return [Sample.caption(f"q{i}", image, "A kite.", prompt="What is it? " * (i + 1)) for i in range(count)]


def encode(scorer: Scorer, rows: list[Sample]) -> list[EncodedSample]:
    return [scorer.encoder.encode(row) for row in rows]


def difference(scorer: Scorer, rows: list[EncodedSample]) -> float:
    """Largest difference of the fast path, cold and warm, from the plain one."""
    path = FastPath(scorer.model, scorer.config.contrast, scorer.config.contrast_cache_bytes)
    plain = score_two_forwards(scorer.model, rows)
    largest = 0.0
    for ours in (path.score(rows), path.score(rows[::-1])[::-1]):
        for pair, expected in zip(ours, plain, strict=True):
            for a, b in zip(pair, expected, strict=True):
                largest = max(largest, np.abs(a.logit - b.logit).max(), np.abs(a.logprob - b.logprob).max())
    return float(largest)


@pytest.mark.parametrize("model", ["chatml_model", "vicuna_model"])
@pytest.mark.parametrize("contrast", CONTRASTS)
def test_fast_equals_plain(model: str, contrast: str, request: pytest.FixtureRequest) -> None:
    scorer = load(request.getfixturevalue(model), contrast=contrast)
    rows = samples() + (captions_of_one_image() + questions() if contrast != "image" else [])
    assert difference(scorer, encode(scorer, rows)) <= TOLERANCE


@pytest.mark.parametrize("limit", [0, 20_000])
def test_a_small_cache_changes_nothing_but_speed(chatml_model: Path, limit: int) -> None:
    scorer = load(chatml_model, contrast_cache_bytes=limit)
    assert difference(scorer, encode(scorer, samples() + questions())) <= TOLERANCE


def test_the_cache_keeps_to_its_bytes_and_drops_the_least_recently_used() -> None:
    def one(size: int) -> prefix.Prefix:
        return prefix.Prefix((torch.zeros(1, 1, size, 1),), (torch.zeros(1, 1, size, 1),), torch.zeros(1))

    cache = prefix.PrefixCache(limit=2 * one(10).nbytes)
    cache.put(b"a", one(10))
    cache.put(b"b", one(10))
    assert cache.get(b"a") is not None
    cache.put(b"c", one(10))
    assert (b"a" in cache, b"b" in cache, b"c" in cache) == (True, False, True)
    assert cache.nbytes <= cache.limit
    cache.put(b"huge", one(1000))
    assert b"huge" not in cache
    assert cache.nbytes <= cache.limit


def test_a_warm_cache_gives_the_bytes_of_a_cold_one(chatml_model: Path) -> None:
    scorer = load(chatml_model)
    rows = encode(scorer, [*samples(), *questions()])
    cold = [FastPath(scorer.model, "blank", 2**20).score(rows[i : i + 7]) for i in range(0, len(rows), 7)]
    path = FastPath(scorer.model, "blank", 2**20)
    for _ in range(2):
        warm = [path.score(rows[i : i + 7]) for i in range(0, len(rows), 7)]
    for ours, theirs in zip(warm, cold, strict=True):
        for pair, expected in zip(ours, theirs, strict=True):
            for a, b in zip(pair, expected, strict=True):
                np.testing.assert_array_equal(a.logit, b.logit)
                np.testing.assert_array_equal(a.logprob, b.logprob)


# Negative controls: break each guard, and see the numbers move.


def test_reading_the_first_label_behind_the_prefix_would_be_seen(
    chatml_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = load(chatml_model)
    run = fast.run_prefix

    def forgetful(model: ReferenceModel, row: Any, length: int) -> prefix.Prefix:
        made = run(model, row, length)
        return replace(made, last_hidden=torch.zeros_like(made.last_hidden))

    monkeypatch.setattr(fast, "run_prefix", forgetful)
    assert difference(scorer, encode(scorer, samples())) > 0.01


def test_a_cache_that_a_forward_pass_mutates_would_be_seen(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = load(chatml_model)
    rows = encode(scorer, samples())
    run = fast.continue_prefixes

    def grow(model: ReferenceModel, some: Any, prefixes: Any) -> Any:
        states = run(model, some, prefixes)
        keys = tuple(k + 0.5 for k in prefixes[0].keys)
        object.__setattr__(prefixes[0], "keys", keys)
        return states

    monkeypatch.setattr(fast, "continue_prefixes", grow)
    assert difference(scorer, rows) > 0.01


def test_a_key_that_ignores_the_pixels_would_be_seen(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = load(chatml_model)
    rows = [replace(row, clean=replace(row.clean, pixels_digest=b"")) for row in encode(scorer, samples())]
    assert difference(scorer, rows) > 0.01


def test_masked_without_its_positions_would_be_seen(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = load(chatml_model, contrast="masked")
    text_only = ReferenceModel.text_only

    def renumbered(self: ReferenceModel, row: Any) -> Any:
        short = text_only(self, row)
        return replace(short, positions=np.arange(len(short.ids))[None])

    monkeypatch.setattr(ReferenceModel, "text_only", renumbered)
    assert difference(scorer, encode(scorer, samples())) > 0.01


def test_a_family_whose_fast_path_is_broken_falls_back(
    chatml_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = samples()
    expected = load(chatml_model).score(rows)
    text_only = prefix.run_prefix

    def shifted(model: ReferenceModel, row: Any, length: int) -> prefix.Prefix:
        return text_only(model, replace(row, positions=row.positions + 1), length)

    monkeypatch.setattr(fast, "run_prefix", shifted)
    scorer = load(chatml_model)
    assert scorer.path == "fast"
    with caplog.at_level(logging.WARNING):
        results = scorer.score(rows)
    assert scorer.path == scorer.fingerprint["path"] == "plain"
    assert scorer.self_check is not None
    assert scorer.self_check.difference > scorer.self_check.limit
    assert "differs from two full forward passes" in caplog.text
    for result, other in zip(results, expected, strict=True):
        assert isinstance(result, TokenScores)
        assert isinstance(other, TokenScores)
        np.testing.assert_allclose(result.logit_gap, other.logit_gap, atol=TOLERANCE)


def test_a_sound_fast_path_stays(chatml_model: Path) -> None:
    scorer = load(chatml_model)
    assert scorer.self_check is None
    scorer.score(samples())
    assert scorer.path == scorer.fingerprint["path"] == "fast"
    assert scorer.self_check is not None
    assert scorer.self_check.passed


def test_each_call_of_score_batches_checks_the_fast_path_on_its_own_rows(
    chatml_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of a unit must not depend on what the process scored before."""
    scorer = load(chatml_model)
    rows = encode(scorer, samples())
    expected = scorer.score_batches(rows, 8192)
    assert scorer.path == "fast"
    sound = prefix.run_prefix

    def shifted(model: ReferenceModel, row: Any, length: int) -> prefix.Prefix:
        return sound(model, replace(row, positions=row.positions + 1), length)

    with monkeypatch.context() as broken:
        broken.setattr(fast, "run_prefix", shifted)
        broken.setattr(scorer._fast._cache, "_kept", OrderedDict())  # type: ignore[union-attr]
        results = scorer.score_batches(rows, 8192)
        assert scorer.path == "plain"
    for result, other in zip(results, expected, strict=True):
        assert isinstance(result, TokenScores)
        assert isinstance(other, TokenScores)
        np.testing.assert_allclose(result.logit_gap, other.logit_gap, atol=TOLERANCE)
    again = scorer.score_batches(rows, 8192)
    assert scorer.path == "fast"
    for result, other in zip(again, expected, strict=True):
        assert isinstance(result, TokenScores)
        assert isinstance(other, TokenScores)
        assert result.logit_gap.tolist() == other.logit_gap.tolist()


def test_batches_that_do_not_fit_in_memory_are_the_caller_s_to_cut(
    chatml_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = load(chatml_model)
    rows = encode(scorer, samples())
    expected = scorer.score_batches(rows, 150)
    sound, sizes = FastPath.score, list[int]()

    def tight(path: FastPath, batch: Any) -> Any:
        sizes.append(len(batch) * max(row.length for row in batch))
        if len(batch) > 1 and sizes[-1] > 150:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sound(path, batch)

    monkeypatch.setattr(FastPath, "score", tight)
    with pytest.raises(BatchTooLargeError, match=r"a batch of \d+ tokens ran out of memory") as caught:
        scorer.score_batches(rows, 1000)
    assert caught.value.smaller == sizes[0] // 2
    cut = scorer.score_batches(rows, 150)
    assert [r.logit_gap.tolist() for r in cut if isinstance(r, TokenScores)] == [
        r.logit_gap.tolist() for r in expected if isinstance(r, TokenScores)
    ]
    assert len(scorer.score_encoded(rows)) == len(rows), "a service cuts by itself, for good"
    assert scorer.max_batch_tokens < 8192


def test_what_was_run_is_counted_with_its_padding(chatml_model: Path) -> None:
    scorer = load(chatml_model, contrast="blur")
    rows = encode(scorer, [samples()[0], samples()[len(TEXTS) + 1]])  # two images, two lengths
    scorer.score_encoded(rows)
    before = scorer.usage
    assert scorer.score_encoded(rows)
    lengths = [int(row.clean.label_index[-1]) for row in rows]
    run = scorer.usage - before
    assert run == Usage(2 * sum(lengths), 2 * 2 * max(lengths))
    assert run.waste == pytest.approx(1 - sum(lengths) / (2 * max(lengths)))


def flops(run: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("contrast", ["blank", "masked", "removed"])
def test_a_warm_contrast_costs_a_fraction_of_a_forward_pass(chatml_model: Path, contrast: str) -> None:
    scorer = load(chatml_model, contrast=contrast)
    rows = encode(scorer, [Sample.caption(str(i), picture(30, 30, i), "A red kite over boats.") for i in range(8)])
    path = FastPath(scorer.model, contrast, 2**20)
    path.score(rows)
    fast_flops = flops(lambda: path.score(rows))
    plain_flops = flops(lambda: score_two_forwards(scorer.model, rows))
    # `removed` has no image tokens in the plain way either: only the prompt is saved
    assert fast_flops < (0.9 if contrast == "removed" else 0.75) * plain_flops


def test_captions_of_one_image_share_its_forward_pass_in_any_order(chatml_model: Path) -> None:
    scorer = load(chatml_model)
    many = [row for seed in range(4) for row in captions_of_one_image(5, seed)]
    shuffled = [many[i] for i in np.random.default_rng(0).permutation(len(many))]
    scorer.score(many)  # warm, and checked

    passes: list[int] = []
    tower = scorer.model.model.model.vision_tower
    tower.register_forward_hook(lambda module, args, kwargs, out: passes.append(1), with_kwargs=True)
    scorer.score(shuffled)
    assert len(passes) == 4
