"""What gives silently wrong numbers, family by family: each guard is broken here, and the numbers move."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from scorer import Sample, Scorer
from scorer.contrasts import ChosenContrast, EditedTokens, parse_contrast
from scorer.families.base import no_token_inputs
from scorer.forward import fast, packed, score_full_forwards
from scorer.forward.attention import tower_attention
from scorer.forward.model import ReferenceModel
from scorer.forward.segments import KeptSegment
from scorer.types import Branch, EncodedSample
from tests.scorer.families import harness, oracle
from tests.scorer.families.cases import CASES, case_of
from tests.scorer.families.samples import PROMPT, TOLERANCE, Case, caption

SEEN = 0.01
"""How far the numbers move where a guard is broken: a thousand times the tolerance."""

QWEN = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
WITH_VIDEO = [*QWEN, "llava_onevision", "internvl"]
ANY_GRID = ["llava_next", "qwen3_vl", "internvl", "mistral3"]
WRAPPERS = {
    "qwen3_vl": ["<|vision_start|>", "<|vision_end|>"],
    "internvl": ["<img>", "</img>"],
    "mistral3": ["[IMG_BREAK]", "[IMG_END]"],
}


@pytest.fixture
def get(checkpoint: Callable[[Any], Path]) -> Callable[[str], Case]:
    return partial(case_of, checkpoint=checkpoint)


def few() -> list[Sample]:
    return [caption(f"{w}x{h}", (w, h), "A red kite over boats.") for w, h in [(30, 50), (64, 64), (50, 30), (40, 20)]]


def shared() -> list[Sample]:
    """Captions of one picture, without a prompt."""
    return [caption(str(i), (50, 30), "A kite. " * i, "") for i in (1, 2, 3)]


def contrast_error(scorer: Scorer, case: Case, rows: list[Sample]) -> float:
    """How far ``masked`` scores are from the class's own."""
    worst = 0.0
    for sample in rows:
        row = scorer.encoder.encode(sample)
        inputs = oracle.text_only_oracle_inputs(case, scorer, sample)
        expected = oracle.oracle_scores(scorer, inputs, row.contrast.label_index)
        ((clean, contrast),) = score_full_forwards(scorer.model, [row])
        worst = max(worst, harness.error([(clean, contrast)], [(clean, expected)]))
    return worst


# 1. Processors with a video part refuse to load without torchvision.


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
@pytest.mark.parametrize("name", WITH_VIDEO)
def test_the_whole_processor_would_not_load(name: str, get: Callable[[str], Case]) -> None:
    case = get(name)
    with pytest.raises((ImportError, ValueError, OSError)):
        AutoProcessor.from_pretrained(case.path)
    assert case.load().encoder._processor.image_processor is not None


# 3. Positions with gaps, no mask and no cache are taken for packed sequences.


def worst_fast(scorer: Scorer, rows: list[EncodedSample], plain: list[harness.Pair], size: int = 1) -> float:
    return max(harness.error(scores, plain) for scores in harness.fast_scores(scorer, rows, size=size))


# 4. Multimodal rotary positions.


@pytest.mark.parametrize("name", QWEN)
def test_positions_of_a_zeroed_mask(name: str, get: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch) -> None:
    case = get(name)
    scorer = case.load("masked")
    assert contrast_error(scorer, case, few()) <= TOLERANCE
    base = scorer.model.model.model
    rope_index = base.get_rope_index
    prepare = ReferenceModel.prepare

    def renumbered(self: ReferenceModel, branch: Any) -> Any:
        attend = torch.from_numpy(branch.attend)[None]
        monkeypatch.setattr(base, "get_rope_index", partial(rope_index, attention_mask=attend))
        row = prepare(self, branch)
        monkeypatch.setattr(base, "get_rope_index", rope_index)
        return row

    monkeypatch.setattr(ReferenceModel, "prepare", renumbered)
    assert contrast_error(scorer, case, few()) > SEEN


@pytest.mark.parametrize("name", QWEN)
def test_a_packed_batch_that_leaves_positions_to_the_model(
    name: str, get: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = get(name).load()
    base = scorer.model.model.model
    forward = base.forward
    rows = harness.encode(scorer, few())
    plain = harness.one_at_a_time(scorer, rows)

    def without_positions(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs | {"position_ids": None})

    monkeypatch.setattr(base, "forward", without_positions)
    if name == "qwen2_5_vl":
        assert worst_fast(scorer, rows, plain) > SEEN
        return
    with pytest.raises(ValueError, match="mm_token_type_ids"):
        worst_fast(scorer, rows, plain)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_a_tower_that_takes_several_images_for_one(
    name: str, get: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = get(name).load()
    rows = harness.encode(scorer, few())
    plain = harness.one_at_a_time(scorer, rows)
    monkeypatch.setattr(packed, "tower_attention", lambda lengths, backend: tower_attention([sum(lengths)], backend))
    assert worst_fast(scorer, rows, plain, size=7) > SEEN


@pytest.mark.parametrize("name", QWEN)
def test_modalities_that_are_missing_are_an_error(name: str, get: Callable[[str], Case]) -> None:
    """Left to itself, Qwen2.5-VL takes the positions of plain text; asked for positions, it must be told."""
    scorer = get(name).load()
    scorer.model.family = replace(scorer.model.family, token_inputs=no_token_inputs)
    with pytest.raises(TypeError, match="mm_token_type_ids"):
        score_full_forwards(scorer.model, harness.encode(scorer, few()))


# 9. Equal tokens are not equal pixels: the blank depends on the picture's aspect ratio.


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision"])
def test_a_prefix_key_of_tokens_alone(name: str, get: Callable[[str], Case]) -> None:
    scorer = get(name).load()
    sizes = [(width, 100) for width in range(30, 64)]
    rows = [scorer.encoder.encode(caption(str(size), size, "A red kite.")) for size in sizes]
    by_tokens: dict[bytes, dict[bytes, EncodedSample]] = {}
    for row in rows:
        by_tokens.setdefault(row.contrast.input_ids.tobytes(), {})[row.contrast.pixels_digest] = row
    pair = list(max(by_tokens.values(), key=len).values())
    assert len(pair) >= 2, "no two sizes of equal tokens and other pixels"
    plain = harness.one_at_a_time(scorer, pair)
    assert worst_fast(scorer, pair, plain, size=7) <= TOLERANCE
    careless = [replace(row, contrast=replace(row.contrast, pixels_digest=b"same")) for row in pair]
    assert worst_fast(scorer, careless, plain, size=7) > 10 * TOLERANCE


# 10, 11. The cached prefix: never mutated, and its last state predicts the first label.


@pytest.mark.parametrize("name", ANY_GRID)
def test_a_cache_that_grows(name: str, get: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = get(name).load()
    rows = harness.encode(scorer, shared())
    plain = harness.one_at_a_time(scorer, rows)
    put = fast.KeptSegments.put

    def changed(self: fast.KeptSegments, key: bytes, segment: KeptSegment) -> None:
        rolled = [(torch.roll(k, 1, dims=-2), v) for k, v in segment.layers]  # as a layer that drops its first token
        put(self, key, replace(segment, layers=rolled))

    monkeypatch.setattr(fast.KeptSegments, "put", changed)
    assert worst_fast(scorer, rows, plain, size=7) > SEEN


@pytest.mark.parametrize("name", ["llava_next", "qwen3_vl"])
def test_a_prefix_without_its_last_state(
    name: str, get: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = harness.plain_template(get(name).load(), bos=True)  # the image ends right before the first label
    rows = harness.encode(scorer, shared())
    plain = harness.one_at_a_time(scorer, rows)
    put = fast.KeptSegments.put

    def forgetful(self: fast.KeptSegments, key: bytes, segment: KeptSegment) -> None:
        put(self, key, replace(segment, last_hidden=torch.zeros_like(segment.last_hidden)))

    monkeypatch.setattr(fast.KeptSegments, "put", forgetful)
    assert worst_fast(scorer, rows, plain, size=7) > SEEN


# 12. Special tokens that a text spells.


@pytest.mark.parametrize("name", list(CASES))
def test_the_processor_takes_a_spelled_token_for_a_real_one(name: str, get: Callable[[str], Case]) -> None:
    case = get(name)
    scorer = case.load()
    sample = caption("a", (50, 30), f"A {case.special_tokens[-1]} kite")
    ours = scorer.encoder.encode(sample).clean.input_ids
    theirs = oracle.processor_inputs(case, scorer, sample, sample.images)["input_ids"][0].numpy()
    control = scorer.encoder._processor.tokenizer.convert_tokens_to_ids(case.special_tokens[-1])
    # the processor also sees the turn's end, which our branch leaves out with all that follows the last label
    end = np.count_nonzero(theirs == control) - np.count_nonzero(ours == control)
    assert end == 1 + (case.special_tokens[-1] == "<|im_end|>")


# 13. Rows are padded behind, whatever side the processor pads.


@pytest.mark.parametrize("name", ["internvl", "qwen2_5_vl"])
def test_rows_padded_in_front(name: str, get: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch) -> None:
    case = get(name)
    scorer = case.load()
    rows = harness.encode(scorer, [*few(), caption("long", (50, 30), "A red kite. " * 9)])
    plain = harness.one_at_a_time(scorer, rows)

    def in_front(self: ReferenceModel, arrays: Any, value: int) -> torch.Tensor:
        width = max(map(len, arrays))
        padded = [np.pad(np.asarray(a), (width - len(a), 0), constant_values=value) for a in arrays]
        return torch.from_numpy(np.stack(padded).astype(np.int64))

    assert harness.error(score_full_forwards(scorer.model, rows), plain) <= TOLERANCE
    monkeypatch.setattr(ReferenceModel, "_pad", in_front)
    assert harness.error(score_full_forwards(scorer.model, rows), plain) > SEEN


# 15. The tokens around an image stay when it is removed.


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapper_tokens_removed_with_the_image(name: str, get: Callable[[str], Case]) -> None:
    scorer = get(name).load("removed")
    wrappers = scorer.encoder._processor.tokenizer.convert_tokens_to_ids(WRAPPERS[name])
    row = scorer.encoder.encode(caption("a", (50, 30), "A red kite.", PROMPT))
    clean, removed = (np.isin(branch.input_ids, wrappers) for branch in (row.clean, row.contrast))
    assert clean.sum() == removed.sum() >= len(wrappers)
    ids, label_index = row.contrast.input_ids, row.contrast.label_index
    stripped = replace(
        row.contrast,
        input_ids=ids[~removed],
        attend=np.ones(int((~removed).sum()), dtype=np.bool_),
        label_index=(np.cumsum(~removed) - 1)[label_index],
    )
    pairs = (score_full_forwards(scorer.model, [one]) for one in (row, replace(row, contrast=stripped)))
    ours, without = pairs
    assert harness.error(without, ours) > SEEN


@pytest.mark.parametrize("name", ["llava", "llava_onevision"])
def test_a_hidden_image_token_that_predicts_would_be_seen(
    get: Callable[[str], Case], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``masked`` without its check: the fast path, which leaves hidden tokens out, has no such state."""
    scorer = harness.plain_template(get(name).shared("masked"), bos=True)
    monkeypatch.setattr(Branch, "__post_init__", lambda branch: None)
    unchecked = EditedTokens(lambda branch, image_tokens: replace(branch, attend=~image_tokens))
    masked = replace(parse_contrast("masked").record, how=unchecked)
    monkeypatch.setattr(scorer.encoder, "_contrasts", (ChosenContrast(masked),))
    assert harness.fast_error(scorer, [caption("a", (50, 30), "A red kite.", prompt="")]) > SEEN
