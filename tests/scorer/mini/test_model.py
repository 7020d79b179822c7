"""The packaged checkpoint: loads as any other, is as small as it says, and sees."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from scorer.mini import MODEL_PATH
from scorer.mini.batches import MASKED, REMOVED, SceneEncoder, TrainingRow, collate
from scorer.mini.evaluation import HeldOut, held_out, predict
from scorer.mini.inputs import BLANK, SHOWN
from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL
from scorer.mini.language.prompts import PROMPT
from scorer.mini.objective import hidden_states, image_features, with_blank
from scorer.mini.packaging import IMAGE_SIZE, IMAGE_TOKENS
from scorer.mini.world.drawing import draw
from scorer.statistics import auroc

TOKENIZER = AutoTokenizer.from_pretrained(MODEL_PATH)


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(MODEL_PATH)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(MODEL_PATH, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def encoder() -> SceneEncoder:
    return SceneEncoder(TOKENIZER)


def test_it_is_small(model: Any) -> None:
    assert 2e6 <= model.num_parameters() <= 5e6
    assert sum(file.stat().st_size for file in Path(MODEL_PATH).iterdir()) <= 10 * 2**20
    assert [file.name for file in Path(MODEL_PATH).glob("*.bin")] == []
    assert model.config.get_text_config().max_position_embeddings >= 1024


@given(st.text())
def test_any_text_survives_the_tokenizer(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert TOKENIZER.decode(ids) == text


def test_special_tokens_in_a_text_can_be_read_as_text() -> None:
    text = "an <image> and <|im_end|> and <pad>"
    ids = TOKENIZER.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert not set(ids) & set(TOKENIZER.all_special_ids)
    assert TOKENIZER.decode(ids) == text


def test_words_that_need_the_picture_are_single_tokens(encoder: SceneEncoder) -> None:
    """Else the first piece of a word would carry the word's information and the rest none."""
    for pair in held_out("test tokens", 100):
        by_word = [span.label for span in pair.caption.spans if span.label != FILLER]
        assert [label for label in encoder.caption(pair.caption)[1] if label != FILLER] == by_word


def test_the_template_takes_turns_images_and_systems(processor: Any) -> None:
    dialogue = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "One?"}]},
        {"role": "assistant", "content": "A star."},
        {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Two?"}]},
    ]
    assert processor.apply_chat_template(dialogue, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n<image>\nOne?<|im_end|>\n"
        "<|im_start|>assistant\nA star.<|im_end|>\n"
        "<|im_start|>user\n<image>\n<image>\nTwo?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def plain_forward(processor: Any, model: Any, pair: HeldOut, mode: str) -> tuple[list[int], torch.Tensor]:
    """Ids and logits [N, V] of a caption's tokens the way any user gets them: template, processor, model."""
    question = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    text = processor.apply_chat_template(question, add_generation_prompt=True)
    picture = draw(pair.scene, IMAGE_SIZE)
    if mode == BLANK:
        picture.paste((128, 128, 128), (0, 0, IMAGE_SIZE, IMAGE_SIZE))
    inputs = processor(images=[picture], text=[text + pair.caption.text], return_tensors="pt")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    count = len(TOKENIZER.encode(pair.caption.text, add_special_tokens=False))
    is_image = ids == model.config.image_token_id
    assert is_image.sum() == IMAGE_TOKENS
    positions = torch.arange(ids.shape[1])[None]
    if mode == MASKED:
        mask = mask & ~is_image
    if mode == REMOVED:
        ids, mask, positions = ids[~is_image][None], mask[~is_image][None], positions[:, :-IMAGE_TOKENS]
    pixels = None if mode == REMOVED else inputs["pixel_values"]
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, pixel_values=pixels).logits
    return ids[0, -count:].tolist(), logits[0, -count - 1 : -1]


@pytest.mark.parametrize("mode", [SHOWN, BLANK, MASKED, REMOVED])
@torch.no_grad()
def test_packed_training_rows_equal_dialogues_one_by_one(
    processor: Any, model: Any, encoder: SceneEncoder, mode: str
) -> None:
    """Two captions share a row's image tokens in training; each must read as if it stood alone."""
    scene = held_out("test packing", 1)[0].scene
    pairs = [HeldOut(scene, pair.caption) for pair in held_out("test packing", 3)]
    branches = [encoder.first(SHOWN if mode == BLANK else mode, PROMPT, pair.caption) for pair in pairs]
    opening = encoder.opening(system=False)
    row = TrainingRow([scene], [np.asarray(draw(scene, IMAGE_SIZE))], opening, branches, blank=mode == BLANK)
    batch = collate([row], encoder)
    logits = model.lm_head(hidden_states(model, batch, image_features(model, with_blank(batch.pixels))))[0]
    in_order = sorted(zip(pairs, branches, strict=True), key=lambda pair: len(pair[1].ids))
    for (pair, branch), segment in zip(in_order, batch.segments[1:], strict=True):
        ids, expected = plain_forward(processor, model, pair, mode)
        end = segment.start + len(branch.ids) - 2  # before <|im_end|> and the line's end
        assert batch.ids[0, end - len(ids) : end].tolist() == ids
        torch.testing.assert_close(logits[end - len(ids) - 1 : end - 1], expected, atol=2e-4, rtol=1e-4)


def test_it_is_grounded(model: Any, encoder: SceneEncoder) -> None:
    """Both gaps tell labels apart; they tell shuffled labels apart no better than chance."""
    pairs = held_out("test grounding", 60)
    found, shown = predict(model, encoder, pairs, SHOWN)
    blank = predict(model, encoder, pairs, BLANK)[1]
    labels = np.array(found, dtype=object)
    shuffled = np.random.default_rng(0).permutation(labels)
    for gap in (shown.logit - blank.logit, shown.logprob - blank.logprob):
        assert auroc(gap[labels == VISUAL], gap[labels == FILLER]) > 0.95
        assert auroc(gap[labels == VISUAL], gap[labels == CONTRADICTORY]) > 0.95
        assert auroc(gap[shuffled == VISUAL], gap[shuffled == FILLER]) == pytest.approx(0.5, abs=0.06)


@torch.no_grad()
def test_it_describes_a_picture(processor: Any, model: Any) -> None:
    question = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    text = processor.apply_chat_template(question, add_generation_prompt=True)
    right = 0
    for pair in (pairs := held_out("test describing", 12)):
        inputs = processor(images=[draw(pair.scene, 160)], text=[text], return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=60, do_sample=False)
        answer = processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        right += all(group.colour in answer for group in pair.scene.groups)
    assert right >= len(pairs) // 2
