"""InstructBLIP: placeholders before BOS, and a Q-Former that must not read the caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scorer import Sample, Scorer, TokenScores
from scorer.checkpoint.files import Checkpoint
from scorer.errors import FailureCode, ModelError
from scorer.families import FAMILIES
from scorer.forward import LabelScores, fast, score_full_forwards
from scorer.results import Failure
from scorer.types import Turn
from tests.scorer.families.checkpoints import instructblip
from tests.scorer.families.harness import FamilySuite, encode, error, fast_error, plain_text
from tests.scorer.families.oracle import oracle_scores
from tests.scorer.families.samples import Case, caption, two_images, two_turns


def prompt_and_caption(scorer: Scorer, sample: Sample, images: Sequence[Any]) -> dict[str, Any]:
    """The processor's call on the whole text, but for the Q-Former: that is given the prompt alone."""
    processor = scorer.encoder._processor
    prompt, text = (turn.text for turn in sample.turns)
    whole = processor(images=list(images), text=f"{prompt} {text}" if prompt else text, return_tensors="pt")
    qformer = processor(text=prompt, return_tensors="pt")
    return {**whole, **{name: value for name, value in qformer.items() if name.startswith("qformer")}}


class TestInstructBlip(FamilySuite):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory: pytest.TempPathFactory) -> Case:
        return Case(
            path=instructblip.make(tmp_path_factory.mktemp("instructblip")),
            special_tokens=instructblip.SPECIALS,
            several_images=False,
            several_turns=False,
            inputs=prompt_and_caption,
        )

    @pytest.mark.parametrize("contrast", ["masked", "removed"])
    def test_scores_without_the_image_are_those_of_the_class(self, case: Case, contrast: str) -> None:
        """``removed`` is its language model alone: its own class wants an image in any case."""
        scorer = case.shared(contrast)
        for sample in plain_text(case):
            (row,) = encode(scorer, [sample])
            inputs = prompt_and_caption(scorer, sample, sample.images)
            shown = inputs["input_ids"] != scorer.encoder.image_token_id
            if contrast == "removed":
                ids = inputs["input_ids"][shown][None]
                with torch.inference_mode():
                    logits = scorer.model.model.language_model(input_ids=ids).logits[0]
                index = torch.from_numpy(row.contrast.label_index)
                labels = ids[0, index][:, None]
                expected = logits[index - 1].gather(1, labels)[:, 0].numpy()
                ours = score_full_forwards(scorer.model, [row])[0][1].logit
                np.testing.assert_allclose(ours, expected, atol=case.tolerance)
                continue
            inputs["attention_mask"] = shown.long()
            inputs["position_ids"] = torch.arange(shown.shape[1])[None]
            expected_scores = oracle_scores(scorer, inputs, row.contrast.label_index)
            ours_masked = score_full_forwards(scorer.model, [row])[0][1]
            np.testing.assert_allclose(ours_masked.logprob, expected_scores.logprob, atol=case.tolerance)

    def text_alone(self, scorer: Scorer, inputs: dict[str, Any], label_index: np.ndarray) -> LabelScores:
        """Its own class wants an image in any case: the language model alone is asked."""
        with torch.inference_mode():
            logits = scorer.model.model.language_model(**inputs).logits[0].float()
        predicting = logits[torch.from_numpy(label_index - 1)]
        labels = inputs["input_ids"][0, torch.from_numpy(label_index)][:, None]
        scores = (predicting, predicting.log_softmax(-1))
        return LabelScores(*(values.gather(1, labels)[:, 0].numpy() for values in scores))

    def test_placeholders_stand_before_bos(self, case: Case) -> None:
        encoder = case.load().encoder
        ids = encoder.encode(caption("a", (30, 50), "A kite.")).clean.input_ids
        assert ids[:4].tolist() == [encoder.image_token_id] * 3 + [encoder._processor.tokenizer.bos_token_id]

    def test_a_caption_that_the_q_former_reads_would_be_seen(self, case: Case) -> None:
        scorer = case.load()
        row = caption("a", (30, 50), "A red kite over boats.")
        (right,) = encode(scorer, [row])
        leaked = [Turn("user", (row.turns[0].text + " " + row.turns[1].text,)), row.turns[1]]
        family = scorer.encoder.family
        inputs = family.sample_inputs
        scorer.encoder.family = replace(family, sample_inputs=lambda p, turns, ids, px: inputs(p, leaked, ids, px))
        (wrong,) = encode(scorer, [row])
        scores = (score_full_forwards(scorer.model, [one]) for one in (right, wrong))
        assert error(*scores) > 0.01

    def test_a_key_without_the_q_former_s_ids_would_be_seen(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        """Prompts that are equal to the language model and differ to the Q-Former: the key must tell them apart."""
        scorer = case.load()
        rows = [caption("a", (30, 50), "A kite.", "what is it ?"), caption("b", (30, 50), "A boat.", "what is it ?")]
        one, other = encode(scorer, rows)
        pixels = {
            **other.contrast.pixels,
            "qformer_input_ids": other.contrast.pixels["qformer_input_ids"][:, ::-1].copy(),
        }
        other = replace(other, contrast=replace(other.contrast, pixels=pixels))
        path = fast.FastPath(scorer.model, ["blank"], 2**20)
        shared = path.score([one]) + path.score([other])
        plain = [score_full_forwards(scorer.model, [row])[0] for row in (one, other)]
        assert error(shared, plain) > 0.001
        other = replace(other, contrast=replace(other.contrast, pixels_digest=b"other"))
        assert error(path.score([other]), plain[1:]) <= case.tolerance

    def test_prompts_have_prefixes_of_their_own(self, case: Case) -> None:
        rows = [caption(str(i), (30, 50), "A kite.", "What is it? " * (1 + i % 3)) for i in range(6)]
        assert fast_error(case.load(), rows) <= case.tolerance

    def test_what_it_has_no_form_for_is_a_row_error(self, case: Case) -> None:
        long = caption("long", (30, 50), "A kite.", "kite boat " * 60)
        *bad, good = case.load().score([two_images(), two_turns(images=1), long, caption("ok", (30, 50), "A kite.")])
        codes = [FailureCode.CONVERSATION_INVALID, FailureCode.TEMPLATE_FAILED, FailureCode.TEXT_TOO_LONG]
        assert [one.code for one in bad if isinstance(one, Failure)] == codes
        assert isinstance(good, TokenScores)

    def test_an_encoder_decoder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "instructblip", "text_config": {"model_type": "t5"}}')
        checkpoint = Checkpoint.locate(tmp_path)
        assert checkpoint.config.model_type in FAMILIES
        with pytest.raises(ModelError, match="encoder-decoder"):
            _ = checkpoint.family
