"""Models without a record of their own: vision-language classes by the plain path, and language models for PRIOR."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    CohereConfig,
    CohereForCausalLM,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from scorer import Sample, Scorer, TokenScores
from scorer.checkpoint import files
from scorer.checkpoint.files import Checkpoint
from scorer.columns import ASKED
from scorer.errors import FailureCode, ModelError
from scorer.families import UNLISTED_VISION
from scorer.results import Failure
from scorer.types import Branch
from scorer.weights import Method
from tests.scorer import distributions, tiny
from tests.scorer.families.checkpoints import common, gemma3
from tests.scorer.scoring import conversation, hugging_face_scores, load, picture

ROWS = [Sample.caption(str(n), picture(50, 30, n), "A red kite over two boats. " * n) for n in (1, 2, 3)]


@pytest.fixture(scope="module")
def vip_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA whose class takes features of several layers; its type has no record."""
    path = tiny.make_llava(tmp_path_factory.mktemp("vip"), tiny.byte_level_tokenizer(), tiny.CHATML)
    config = json.loads((path / "config.json").read_text())
    made = VipLlavaConfig(
        text_config=config["text_config"],
        vision_config=config["vision_config"],
        image_token_index=config["image_token_index"],
        vision_feature_layers=[-1, -2],
    )
    torch.manual_seed(1)
    VipLlavaForConditionalGeneration(made).save_pretrained(path)
    return path


@pytest.mark.parametrize("contrast", ["blank", "removed", "blur"])
def test_a_class_without_a_record_takes_the_plain_path(
    vip_llava: Path, contrast: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        scorer = load(vip_llava, contrast=contrast)
    assert "no verified record" in caplog.text
    assert scorer.path == "plain"
    for sample, result in zip(ROWS, scorer.score(ROWS), strict=True):
        assert isinstance(result, TokenScores)
        gap, clean, other = hugging_face_scores(scorer, sample)
        branch = scorer.encoder.encode(sample).clean
        place = (np.cumsum(branch.input_ids[1:] != scorer.encoder.image_token_id) - 1)[branch.label_index - 1]
        np.testing.assert_allclose(result.logit_gap, gap[place], atol=1e-5)
        np.testing.assert_allclose(result.logprob_clean, clean[place], atol=1e-5)
        np.testing.assert_allclose(result.logprob_contrast, other[place], atol=1e-5)


def all_logits(scorer: Scorer, branch: Branch) -> torch.Tensor:
    """The class's own logits where the labels are predicted, float32 [N, V]."""
    pixels = {name: torch.from_numpy(np.asarray(values)) for name, values in branch.pixels.items()}
    with torch.inference_mode():
        logits = scorer.model.model(input_ids=torch.from_numpy(branch.input_ids)[None], **pixels).logits[0]
    return logits[torch.from_numpy(branch.label_index - 1)]


def test_a_class_s_own_logits_give_distribution_columns(vip_llava: Path) -> None:
    scorer = load(vip_llava, further_contrasts=("blur",), distribution_columns=ASKED)
    for sample, result in zip(ROWS, scorer.score(ROWS), strict=True):
        assert isinstance(result, TokenScores)
        row = scorer.encoder.encode(sample)
        clean, blank, blur = (all_logits(scorer, branch) for branch in row.branches)
        expected = distributions.naive(clean, blank, row.token_ids)
        assert distributions.error(result.optional, expected) < 1e-5
        further = distributions.naive(clean, blur, row.token_ids)
        assert distributions.error(result.with_contrast("blur").optional, further) < 1e-5
        assert distributions.error(result.optional, further) > 1e-3  # negative control


def test_what_cannot_be_known_of_a_class_is_refused(vip_llava: Path) -> None:
    with pytest.raises(ModelError, match="masked"):
        load(vip_llava, contrast="masked")
    (result,) = load(vip_llava).score([conversation()])  # two pictures
    assert isinstance(result, Failure)
    assert result.code is FailureCode.CONVERSATION_INVALID


def test_a_class_that_needs_more_than_is_known_is_refused_when_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma 3 without its record: the class runs without token types, and its numbers are silently others."""
    path = gemma3.make(tmp_path)
    load(path)
    monkeypatch.setattr(files, "FAMILIES", {})
    assert Checkpoint.locate(path).family is UNLISTED_VISION
    with pytest.raises(ModelError, match=r"scores differ by.*token_type_ids"):
        load(path)


# Language models


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """A Cohere, whose class scales its logits; with or without a chat template."""

    def make(chat: bool) -> Path:
        path = tmp_path_factory.mktemp("lm")
        tokenizer = tiny.byte_level_tokenizer()
        tokenizer.chat_template = (
            "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
            if chat
            else None
        )
        options = common.text_config("cohere", len(tokenizer), logit_scale=0.25)
        options.pop("model_type")
        torch.manual_seed(0)
        CohereForCausalLM(CohereConfig(**options)).save_pretrained(path)
        tokenizer.save_pretrained(path)
        return path

    return make


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "base"])
def test_a_language_model_gives_the_probability_of_text(language_model: Callable[[bool], Path], chat: bool) -> None:
    path = language_model(chat)
    scorer = load(path, contrast="removed")
    tokenizer = scorer.encoder._processor.tokenizer
    texts = ["A red kite.", "très naïve 日本語 🪁 kite! " * 3, "a spelled <|im_end|> <image>"]
    rows = [Sample.caption(text[:3], picture(9, 9), text, prompt="What?") for text in texts]
    for result, text in zip(scorer.score(rows), texts, strict=True):
        assert isinstance(result, TokenScores)
        assert np.isnan(result.logit_gap).all()
        assert np.isnan(result.logprob_clean).all()
        start = "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n" if chat else "<|im_end|>What?\n"
        before = tokenizer(start, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[*before, *result.token_ids]])
        with torch.inference_mode():
            logprobs = scorer.model.model(input_ids=ids).logits[0].log_softmax(-1)
        expected = logprobs[len(before) - 1 : -1].gather(1, ids[0, len(before) :, None])[:, 0].numpy()
        np.testing.assert_allclose(result.logprob_contrast, expected, atol=1e-5)
        assert tokenizer.decode(result.token_ids[~result.is_stop]) == text
        assert tokenizer.decode(result.token_ids[result.is_stop]) == ("<|im_end|>" if chat else "")


def test_a_language_model_needs_no_image_and_weights_by_prior(language_model: Callable[[bool], Path]) -> None:
    scorer = load(language_model(True), contrast="removed")
    assert scorer.fingerprint["image_processor"] is None
    with_image = Sample.caption("a", picture(9, 9), "A red kite.")
    without = Sample("b", (), tuple(replace_images(turn) for turn in with_image.turns))
    first, second = scorer.score([with_image, without])
    assert isinstance(first, TokenScores)
    assert isinstance(second, TokenScores)
    np.testing.assert_array_equal(first.logprob_contrast, second.logprob_contrast)
    weights = Method("prior")(first)
    assert np.isfinite(weights).all()
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-5)
    assert weights.std() > 0
    assert np.isnan(Method("cal")(first)).all()


def test_a_language_model_has_entropies_and_no_divergences(language_model: Callable[[bool], Path]) -> None:
    scorer = load(language_model(True), contrast="removed", distribution_columns=ASKED)
    for sample, result in zip(ROWS, scorer.score(ROWS), strict=True):
        assert isinstance(result, TokenScores)
        row = scorer.encoder.encode(sample)
        logits = all_logits(scorer, row.contrast)
        expected = distributions.naive(logits, logits, row.token_ids)
        own = {name: expected[name] for name in ("entropy_contrast", "top1_contrast")}
        assert distributions.error(result.optional, own) < 1e-5
        for name in ("kl", "kl_reverse", "js", "entropy_clean"):
            assert np.isnan(result.optional[name]).all()
        assert not result.optional["top1_clean"].any()


def replace_images(turn: Any) -> Any:
    return type(turn)(turn.role, (turn.text,))


def test_a_language_model_has_no_contrast_but_removed(language_model: Callable[[bool], Path]) -> None:
    with pytest.raises(ModelError, match=r"blank.*removed"):
        load(language_model(True))


def test_non_finite_probabilities_of_a_language_model_are_a_row_error(language_model: Callable[[bool], Path]) -> None:
    scorer = load(language_model(True), contrast="removed")
    scorer.model.model.get_input_embeddings().weight.fill_(float("nan"))
    (result,) = scorer.score(ROWS[:1])
    assert isinstance(result, Failure)
    assert result.code is FailureCode.NON_FINITE


def test_a_model_that_reads_ahead_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny.byte_level_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    config.initializer_range = 0.2
    torch.manual_seed(0)
    BertLMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="causal"):
        load(tmp_path, contrast="removed")
