"""The fast path gives the plain path's numbers, does less work, and steps back where it would not."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scorer import Sample, Scorer, TokenScores
from scorer.errors import BatchTooLargeError
from scorer.forward import FastPath, fast, packed, packing, score_full_forwards, segments
from scorer.forward.attention import Backend, FlexAttention, SegmentedAttention, VarlenAttention, varlen
from scorer.forward.model import ReferenceModel
from scorer.forward.packed import PackedForward, PreparedBatch
from scorer.forward.segments import KeptSegment
from scorer.forward.self_check import compare
from scorer.types import EncodedSample, Usage
from tests.scorer.families.cases import MAKERS
from tests.scorer.forward.naive_flash import naive_flash
from tests.scorer.scoring import CONTRASTS, TOLERANCE, load, picture, samples, with_partner


def captions_of_one_image(count: int = 5, seed: int = 0) -> list[Sample]:
    image = picture(40, 30, seed)
    rows = [Sample.caption(f"{seed}-{i}", image, "A red kite over boats. " * (1 + i % 3)) for i in range(count)]
    return [with_partner(row) for row in rows]


def questions(count: int = 4) -> list[Sample]:
    """One image, other prompts: rows share the image but not the whole prompt."""
    image = picture(40, 30, 50)
    rows = [Sample.caption(f"q{i}", image, "A kite.", prompt="What is it? " * (i + 1)) for i in range(count)]
    return [with_partner(row) for row in rows]


def encode(scorer: Scorer, rows: list[Sample]) -> list[EncodedSample]:
    return [scorer.encoder.encode(row) for row in rows]


def difference(scorer: Scorer, rows: list[EncodedSample]) -> float:
    """Largest difference of the fast path, cold and warm, from the plain one."""
    path = FastPath(scorer.model, scorer.config.contrasts, scorer.config.contrast_cache_bytes)
    plain = score_full_forwards(scorer.model, rows)
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
    alike = [with_partner(row) for row in captions_of_one_image() + questions()]  # they have no contrast images
    rows = samples() + (alike if contrast != "image" else [])
    assert difference(scorer, encode(scorer, rows)) <= TOLERANCE


@pytest.mark.parametrize("limit", [0, 20_000])
def test_a_small_cache_changes_nothing_but_speed(chatml_model: Path, limit: int) -> None:
    scorer = load(chatml_model, contrast_cache_bytes=limit)
    assert difference(scorer, encode(scorer, samples() + questions())) <= TOLERANCE


def test_the_cache_keeps_to_its_bytes_and_drops_the_least_recently_used() -> None:
    def one(size: int) -> KeptSegment:
        return KeptSegment([(torch.zeros(1, 1, size, 1), torch.zeros(1, 1, size, 1))], torch.zeros(1))

    cache = fast.KeptSegments(limit=2 * one(10).nbytes)
    cache.put(b"a", one(10))
    cache.put(b"b", one(10))
    assert cache.get(b"a") is not None
    cache.put(b"c", one(10))
    assert (b"a" in cache, b"b" in cache, b"c" in cache) == (True, False, True)
    assert cache.nbytes <= cache.limit
    cache.put(b"huge", one(1000))
    assert b"huge" not in cache
    assert cache.nbytes <= cache.limit


def test_score_batches_gives_the_bytes_of_a_fresh_process_whatever_was_scored_before(chatml_model: Path) -> None:
    scorer = load(chatml_model)
    rows = encode(scorer, [*samples(), *questions()])
    fresh = gaps(scorer.score_batches(rows, 400))
    scorer.score_encoded(rows)  # fills what is kept
    assert gaps(scorer.score_batches(iter(rows), 400)) == fresh
    assert gaps(scorer.score_batches(rows, 500)) != fresh, "the budget decides the rounding, or this shows nothing"


def gaps(results: Sequence[object]) -> list[list[float]]:
    assert all(isinstance(result, TokenScores) for result in results)
    return [result.logit_gap.tolist() for result in results if isinstance(result, TokenScores)]


def test_rows_are_read_as_they_are_needed_and_their_images_let_go(
    chatml_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few images are in memory at a time, however many rows a unit has."""
    scorer = load(chatml_model)
    monkeypatch.setattr(packing, "HELD_BYTES", 60_000)
    born: list[weakref.ref[Any]] = []
    most = 0

    def rows() -> Iterator[EncodedSample]:
        nonlocal most
        for i in range(60):
            row = scorer.encoder.encode(Sample.caption(str(i), picture(30, 30, i), "A red kite. " * (1 + i % 9)))
            born.append(weakref.ref(row.clean.pixels["pixel_values"].values))
            most = max(most, sum(one() is not None for one in born))
            yield row

    size = next(rows()).clean.pixels["pixel_values"].values.nbytes
    results = scorer.score_batches(rows(), 300)
    assert [result.sample_id for result in results] == [str(i) for i in range(60)]
    assert 60_000 // size <= most < 2 * 60_000 // size < 60


def test_contrasts_wait_for_the_whole_unit_and_run_their_prefix_once(
    chatml_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = load(chatml_model)
    monkeypatch.setattr(packing, "HELD_BUDGETS", 2)
    rows = encode(scorer, [Sample.caption(str(i), picture(30, 30, i), "A red kite.") for i in range(40)])
    scorer.score_batches(rows[:2], 200)
    images: list[int] = []
    tower = scorer.model.model.model.vision_tower
    tower.register_forward_hook(lambda m, args, kwargs, out: images.append(len(args[0])), with_kwargs=True)
    path = FastPath(scorer.model, ["blank"])
    assert len(list(path.score_rows(iter(rows), 10_000))) == 80
    assert sum(images) == 40 + 1, "each image, and the blank once"


def test_one_vision_call_and_one_decoder_call_a_batch(chatml_model: Path) -> None:
    scorer = load(chatml_model)
    calls: list[str] = []
    base = scorer.model.model.model
    for name in ("vision_tower", "language_model"):
        getattr(base, name).register_forward_hook(lambda *args, name=name: calls.append(name))
    FastPath(scorer.model, ["blank"]).score(encode(scorer, samples()))
    assert calls == ["vision_tower", "language_model"]


# Negative controls: break each guard, and see the numbers move.


def test_reading_the_first_label_one_state_late_would_be_seen(
    chatml_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = load(chatml_model)
    reads = segments._reads
    monkeypatch.setattr(segments, "_reads", lambda path, bases: np.maximum(reads(path, bases) - 1, 0))
    assert difference(scorer, encode(scorer, samples())) > 0.01


def test_a_kept_prefix_that_changes_would_be_seen(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = load(chatml_model)
    put = fast.KeptSegments.put

    def changed(self: fast.KeptSegments, key: bytes, segment: KeptSegment) -> None:
        put(self, key, replace(segment, layers=[(k + 0.5, v) for k, v in segment.layers]))

    monkeypatch.setattr(fast.KeptSegments, "put", changed)
    assert difference(scorer, encode(scorer, samples())) > 0.01


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


def shifted(*args: Any) -> segments.Layout:
    """A layout that reads each state one place early."""
    layout = segments.lay_out(*args)
    return replace(layout, reads=[np.maximum(reads - 1, 0) for reads in layout.reads])


def test_a_family_whose_fast_path_is_broken_falls_back(
    chatml_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = samples()
    expected = load(chatml_model).score(rows)
    monkeypatch.setattr(packed, "lay_out", shifted)
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
    with monkeypatch.context() as broken:
        broken.setattr(packed, "lay_out", shifted)
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
    sound, sizes = PackedForward.run, list[int]()

    def tight(self: PackedForward, batch: PreparedBatch, keep: Any = ()) -> Any:
        sizes.append(len(batch.layout.ids))
        if len(batch.paths) > 1 and sizes[-1] > 150:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sound(self, batch, keep)

    monkeypatch.setattr(PackedForward, "run", tight)
    with pytest.raises(BatchTooLargeError, match=r"a batch of \d+ tokens ran out of memory") as caught:
        scorer.score_batches(rows, 1000)
    assert caught.value.smaller == sizes[-1] // 2
    assert scorer.path == "fast", "rows that do not fit together are checked one by one"
    cut = scorer.score_batches(rows, 150)
    assert [r.logit_gap.tolist() for r in cut if isinstance(r, TokenScores)] == [
        r.logit_gap.tolist() for r in expected if isinstance(r, TokenScores)
    ]
    assert len(scorer.score_encoded(rows)) == len(rows), "a service cuts by itself, for good"
    assert scorer.max_batch_tokens < 8192


def test_what_was_run_is_counted(chatml_model: Path) -> None:
    scorer = load(chatml_model, contrast="blur")
    rows = encode(scorer, [Sample.caption(str(n), picture(30, 30, n), "A red kite. " * n) for n in (1, 2)])
    scorer.score_encoded(rows)
    before = scorer.usage
    assert scorer.score_encoded(rows)
    lengths = [int(row.clean.label_index[-1]) for row in rows]
    assert scorer.usage - before == Usage(2 * sum(lengths), 2 * sum(lengths)), "there is no padding"


@pytest.mark.parametrize("backend", [SegmentedAttention, FlexAttention, VarlenAttention])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_totals_are_rounded_up_by_a_segment_that_nothing_reads(
    chatml_model: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(varlen, "flash", naive_flash)
    scorer = load(chatml_model)
    rows = encode(scorer, samples()[:6])
    plain = score_full_forwards(scorer.model, rows)
    before = scorer.usage
    rounded = FastPath(scorer.model, ["blank"], backend=backend, bucket=256).score(rows)
    run = scorer.usage - before
    assert run.padded % 256 == 0 < run.padded - run.tokens < 256
    assert compare(rounded, plain, "float32").difference < TOLERANCE


@pytest.mark.parametrize("name", ["qwen2_5_vl", "mistral3"])
def test_variable_lengths_run_a_whole_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a tower of windows; with prefixes that are kept, and without."""
    monkeypatch.setattr(varlen, "flash", naive_flash)
    scorer = load(MAKERS[name](tmp_path))
    assert scorer.model.attends_causally
    rows = encode(scorer, samples()[-8:-1] + captions_of_one_image() + questions())
    plain = score_full_forwards(scorer.model, rows)
    path = FastPath(scorer.model, ["blank"], 2**20, backend=VarlenAttention)
    for kept in (False, True, True):
        assert compare(path.score(rows, kept), plain, "float32").difference < TOLERANCE


@pytest.mark.parametrize(
    ("flex", "causal", "agrees", "chosen"),
    [
        (True, True, True, FlexAttention),
        (False, True, True, VarlenAttention),
        (False, False, True, SegmentedAttention),
        (False, True, False, SegmentedAttention),
    ],
)
def test_the_backend_with_the_fewest_kernels_that_runs_is_chosen(
    chatml_model: Path, monkeypatch: pytest.MonkeyPatch, flex: bool, causal: bool, agrees: bool, chosen: Backend
) -> None:
    model = load(chatml_model).model
    assert packed.fastest(model) is SegmentedAttention, "on a CPU"
    monkeypatch.setattr(packed, "runs_on", lambda *where: flex)
    monkeypatch.setattr(packed, "agrees_on", lambda *where: agrees)
    monkeypatch.setattr(ReferenceModel, "device", torch.device("cuda"))
    monkeypatch.setattr(ReferenceModel, "attends_causally", causal)
    assert packed.fastest(model) is chosen


@pytest.mark.parametrize("name", ["gemma3", "paligemma", "paligemma2"])
def test_a_model_with_windows_blocks_or_capped_scores_does_not_attend_causally(name: str, tmp_path: Path) -> None:
    assert not load(MAKERS[name](tmp_path)).model.attends_causally


def flops(run: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("contrast", ["blank", "masked", "removed"])
def test_a_warm_contrast_costs_a_fraction_of_a_forward_pass(chatml_model: Path, contrast: str) -> None:
    scorer = load(chatml_model, contrast=contrast)
    rows = encode(scorer, [Sample.caption(str(i), picture(30, 30, i), "A red kite over boats.") for i in range(8)])
    path = FastPath(scorer.model, [contrast], 2**20)
    path.score(rows)
    fast_flops = flops(lambda: path.score(rows))
    plain_flops = flops(lambda: score_full_forwards(scorer.model, rows))
    # `removed` has no image tokens in the plain way either: only the prompt is saved
    assert fast_flops < (0.9 if contrast == "removed" else 0.75) * plain_flops


def test_captions_of_one_image_share_its_forward_pass_in_any_order(chatml_model: Path) -> None:
    scorer = load(chatml_model)
    many = [row for seed in range(4) for row in captions_of_one_image(5, seed)]
    shuffled = [many[i] for i in np.random.default_rng(0).permutation(len(many))]
    scorer.score(many)  # what is kept, and checked

    images: list[int] = []
    tower = scorer.model.model.model.vision_tower
    tower.register_forward_hook(lambda module, args, kwargs, out: images.append(len(args[0])), with_kwargs=True)
    scorer.score(shuffled)
    assert sum(images) == 4
