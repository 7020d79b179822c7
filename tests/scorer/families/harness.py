"""What every family is held to. A family's test file subclasses :class:`FamilySuite` and names its checkpoint.

Three computations of the same scores are compared, to :data:`TOLERANCE`:

* the fast path, cold and warm, in batches;
* two full forward passes, in batches and one sample at a time;
* transformers' own processor and class, one sample at a time, all logits: no code of ours but the altered images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from scorer import Sample, Scorer, ScorerConfig, TokenScores
from scorer import images as image_ops
from scorer.errors import FailureCode, ModelError
from scorer.families import ALL_CONTRASTS
from scorer.forward import FastPath, LabelScores, score_two_forwards
from scorer.types import IMAGE, EncodedSample, Failure, Turn
from tests.scorer.test_engine import picture

TOLERANCE = 1e-5
"""float32, relative to max(1, |x|)."""

SIZES = [(1, 1), (8, 8), (1500, 40), (30, 50), (50, 30), (64, 64)]
LONG = "A red kite over two boats, très naïve 日本語 🪁! " * 30
PROMPT = "What is it?"

Pair = tuple[LabelScores, LabelScores]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One checkpoint under test.

    Attributes:
        path: the saved checkpoint.
        special_tokens: control tokens of the family that a caption and a prompt spell.
        refused: sizes that the family's own image processor refuses.
        several_images: a sample may hold more than one image.
        several_turns: a conversation may have more than one assistant turn.
        nested_images: the processor is given a sample's images as a list of its own, [[a, b]].
        inputs: (scorer, sample, images) → what the family's own processor makes of a sample that it is not given as
            a rendered prompt.
        tolerance: see :data:`TOLERANCE`.
    """

    path: Path
    special_tokens: tuple[str, ...]
    refused: frozenset[tuple[int, int]] = frozenset()
    several_images: bool = True
    several_turns: bool = True
    nested_images: bool = False
    inputs: Callable[[Scorer, Sample, Sequence[Any]], dict[str, Any]] | None = None
    tolerance: float = TOLERANCE

    def load(self, contrast: str = "blank", **options: Any) -> Scorer:
        """The engine on this checkpoint."""
        return Scorer.load(self.path, ScorerConfig(device="cpu", contrast=contrast, **options))

    def rows(self) -> list[Sample]:
        """Mixed sizes and lengths, shared images, special tokens as text, several images and turns."""
        sizes = [size for size in SIZES if size not in self.refused]
        rows = [caption(f"{w}x{h}", (w, h), text) for w, h in sizes for text in ("A", "A red kite over boats.")]
        rows += [caption(f"long {n}", (50, 30), LONG[:n]) for n in (40, len(LONG))]
        rows += [caption(f"prompt {n}", (50, 30), "A kite.", "What is it? " * n) for n in (1, 3)]
        rows.append(caption("no prompt", (50, 30), "A kite.", ""))
        rows.append(self.spelling())
        if self.several_images:
            rows.append(two_images())
        if self.several_turns:
            rows.append(two_turns(images=2 if self.several_images else 1))
        return rows

    def spelling(self, word: str | None = None) -> Sample:
        """A prompt and a caption that spell the special tokens, or ``word`` in the place of each."""
        spelled = " ".join(word or token for token in self.special_tokens)
        return caption("spelling", (30, 50), f"A {spelled} kite", f"What is {spelled} here?")


def caption(name: str, size: tuple[int, int], text: str, prompt: str = PROMPT) -> Sample:
    """One image and its caption; images of one size are the same image."""
    image = picture(*size, seed=size[0])
    return Sample.caption(name, image, text, prompt=prompt, contrast_image=picture(40, 44, seed=3))


def two_images() -> Sample:
    """Two images of different sizes in one turn."""
    turns = (Turn("user", ("First ", IMAGE, " then ", IMAGE, "?")), Turn("assistant", ("A boat, a kite.",)))
    return Sample("two images", (picture(20, 40, 7), picture(40, 20, 8)), turns, (picture(44, 40, 9),) * 2)


def two_turns(images: int = 2) -> Sample:
    """Two scored turns; with two images, the second stands behind the first scored text."""
    second = (IMAGE, "And?") if images == 2 else ("And?",)
    turns = (
        Turn("user", (IMAGE, PROMPT)),
        Turn("assistant", ("A red kite.",)),
        Turn("user", second),
        Turn("assistant", ("Two boats.",)),
    )
    return Sample(
        "two turns", (picture(50, 30, 50), picture(40, 20, 8))[:images], turns, (picture(44, 40, 9),) * images
    )


def encode(scorer: Scorer, rows: Iterable[Sample]) -> list[EncodedSample]:
    return [scorer.encoder.encode(row) for row in rows]


def error(ours: Sequence[Pair], theirs: Sequence[Pair]) -> float:
    """Largest difference of logits and log-probabilities, relative to max(1, |x|)."""
    assert len(ours) == len(theirs) > 0
    largest = 0.0
    for pair, expected in zip(ours, theirs, strict=True):
        for a, b in zip(pair, expected, strict=True):
            for x, y in ((a.logit, b.logit), (a.logprob, b.logprob)):
                assert x.shape == y.shape
                assert np.isfinite(x).all()
                assert np.isfinite(y).all()
                largest = max(largest, float((np.abs(x - y) / np.maximum(1, np.abs(y))).max()))
    return largest


def fast_scores(scorer: Scorer, rows: Sequence[EncodedSample], size: int = 7) -> list[list[Pair]]:
    """The fast path's scores, cold and warm, in batches of ``size`` rows in a fixed random order."""
    path = FastPath(scorer.model, scorer.config.contrast, scorer.config.contrast_cache_bytes)
    order = np.random.default_rng(1).permutation(len(rows))
    passes = []
    for _ in range(2):
        scores: dict[int, Pair] = {}
        for start in range(0, len(rows), size):
            batch = order[start : start + size]
            scores.update(zip(batch, path.score([rows[i] for i in batch]), strict=True))
        passes.append([scores[i] for i in range(len(rows))])
    return passes


def one_at_a_time(scorer: Scorer, rows: Sequence[EncodedSample]) -> list[Pair]:
    return [score_two_forwards(scorer.model, [row])[0] for row in rows]


def fast_error(scorer: Scorer, rows: Sequence[Sample]) -> float:
    """Largest difference of the fast path from two full passes, one sample at a time: for negative controls."""
    encoded = encode(scorer, rows)
    plain = one_at_a_time(scorer, encoded)
    return max(error(scores, plain) for scores in fast_scores(scorer, encoded))


# The oracle: transformers' own processor and class.


def processor_inputs(case: Case, scorer: Scorer, sample: Sample, images: Sequence[Any]) -> dict[str, Any]:
    """What the model's own processor makes of the rendered conversation."""
    if case.inputs is not None:
        return case.inputs(scorer, sample, images)
    processor = scorer.encoder._processor
    messages = [
        {
            "role": turn.role,
            "content": [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in turn.content],
        }
        for turn in sample.turns
    ]
    prompt = processor.apply_chat_template(messages, tokenize=False)
    pictures = [list(images)] if case.nested_images else list(images)
    return dict(processor(images=pictures, text=[prompt], return_tensors="pt"))


def oracle_inputs(case: Case, scorer: Scorer, sample: Sample) -> tuple[dict[str, Any], dict[str, Any]]:
    """The clean and the blank inputs."""
    blanks = [image_ops.blank_like(image, scorer.encoder._blank_color) for image in sample.images]
    clean, blank = (processor_inputs(case, scorer, sample, images) for images in (sample.images, blanks))
    return clean, blank


def text_only_oracle_inputs(case: Case, scorer: Scorer, sample: Sample) -> dict[str, Any]:
    """The contrast's inputs for ``masked`` (image tokens hidden, positions kept) and ``removed`` (taken out)."""
    inputs = processor_inputs(case, scorer, sample, sample.images)
    ids = inputs["input_ids"]
    shown = ids != scorer.model.model.config.image_token_id
    if scorer.config.contrast == "removed":
        per_token = {name for name, values in inputs.items() if values.shape == ids.shape}
        return {name: inputs[name][shown][None] for name in per_token}
    base = scorer.model.model.model
    if hasattr(base, "get_rope_index"):
        positions, _ = base.get_rope_index(**{n: v for n, v in inputs.items() if n != "attention_mask"})
    else:
        positions = scorer.reference.family.first_position + torch.arange(ids.shape[1])[None]
    return {**inputs, "attention_mask": shown.long(), "position_ids": positions}


def oracle_scores(scorer: Scorer, inputs: dict[str, Any], label_index: np.ndarray) -> LabelScores:
    """The class's own logits of the labels."""
    with torch.inference_mode():
        logits = scorer.model.model(**inputs).logits[0].float()  # [T, V]
    predicting = logits[torch.from_numpy(label_index - 1)]
    labels = inputs["input_ids"][0, torch.from_numpy(label_index)][:, None]
    logprobs = predicting.log_softmax(-1)
    return LabelScores(*(values.gather(1, labels)[:, 0].numpy() for values in (predicting, logprobs)))


class FamilySuite:
    """The checks. Subclasses give a fixture ``case``; each test is small, so that a failure names what broke."""

    CONTRASTS: ClassVar = sorted(ALL_CONTRASTS)

    @pytest.mark.parametrize("contrast", CONTRASTS)
    def test_fast_plain_and_one_at_a_time_agree(self, case: Case, contrast: str, record_property: Any) -> None:
        if contrast not in case.load().reference.family.contrasts:
            with pytest.raises(ModelError, match=contrast):
                case.load(contrast)
            return
        scorer = case.load(contrast)
        rows = encode(scorer, case.rows())
        assert max(len(row.token_ids) for row in rows) >= 300
        alone = one_at_a_time(scorer, rows)
        errors = {"plain batched": error(score_two_forwards(scorer.model, rows), alone)}
        if scorer.reference.family.fast:
            cold, warm = fast_scores(scorer, rows)
            errors |= {"fast cold": error(cold, alone), "fast warm": error(warm, alone)}
        record_property("error", max(errors.values()))
        assert max(errors.values()) <= case.tolerance, errors

    def test_the_engine_takes_the_fast_path_and_keeps_it(self, case: Case) -> None:
        scorer = case.load()
        results = scorer.score(case.rows())
        assert all(isinstance(result, TokenScores) for result in results)
        assert scorer.path == ("fast" if scorer.reference.family.fast else "plain")

    def test_ids_and_pixels_are_those_of_the_processor(self, case: Case) -> None:
        scorer = case.load()
        for sample in self._plain_text(case):
            encoded = scorer.encoder.encode(sample)
            for branch, inputs in zip(
                (encoded.clean, encoded.contrast), oracle_inputs(case, scorer, sample), strict=True
            ):
                ids = inputs["input_ids"][0].numpy()
                np.testing.assert_array_equal(branch.input_ids, ids[: len(branch.input_ids)])
                assert set(branch.pixels) <= set(inputs)
                for name, values in branch.pixels.items():
                    np.testing.assert_array_equal(values, inputs[name].numpy(), err_msg=f"{sample.sample_id}: {name}")
            texts = sample.scored_texts
            for turn, text in enumerate(texts):
                scored = encoded.token_ids[encoded.token_turns == turn]
                assert scorer.encoder._processor.tokenizer.decode(scored).strip() == text.strip()

    def test_scores_are_those_of_the_class(self, case: Case, record_property: Any) -> None:
        scorer = case.load()
        samples = self._plain_text(case)
        encoded = encode(scorer, samples)
        expected = []
        for sample, row in zip(samples, encoded, strict=True):
            inputs = oracle_inputs(case, scorer, sample)
            branches = zip(inputs, (row.clean, row.contrast), strict=True)
            clean, blank = (oracle_scores(scorer, one, branch.label_index) for one, branch in branches)
            expected.append((clean, blank))
        worst = error(score_two_forwards(scorer.model, encoded), expected)
        if scorer.reference.family.fast:
            worst = max(worst, *(error(scores, expected) for scores in fast_scores(scorer, encoded)))
        record_property("error", worst)
        assert worst <= case.tolerance
        shifted = [(replace(c, logit=np.roll(c.logit, 1)), b) for c, b in expected]  # an off-by-one would be seen
        assert error(score_two_forwards(scorer.model, encoded), shifted) > 0.01

    @pytest.mark.parametrize("contrast", ["masked", "removed"])
    def test_scores_without_the_image_are_those_of_the_class(self, case: Case, contrast: str) -> None:
        if contrast not in case.load().reference.family.contrasts:
            pytest.skip("the family does not define it")
        scorer = case.load(contrast)
        for sample in self._plain_text(case)[-4:]:
            row = scorer.encoder.encode(sample)
            inputs = text_only_oracle_inputs(case, scorer, sample)
            expected = oracle_scores(scorer, inputs, row.contrast.label_index)
            ((clean, contrasted),) = score_two_forwards(scorer.model, [row])
            assert error([(clean, contrasted)], [(clean, expected)]) <= case.tolerance

    def _plain_text(self, case: Case) -> list[Sample]:
        """Rows without spelled special tokens, which the processor takes for real ones; and not the longest."""
        return [row for row in case.rows() if row.sample_id != "spelling"]

    def test_special_tokens_in_texts_stay_text(self, case: Case) -> None:
        encoder = case.load().encoder
        spelled, plain = (encoder.encode(row) for row in (case.spelling(), case.spelling("word")))
        tokenizer = encoder._processor.tokenizer
        control = {tokenizer.convert_tokens_to_ids(token) for token in case.special_tokens} | {encoder.image_token_id}
        assert len(control) >= len(case.special_tokens)
        assert tokenizer.unk_token_id not in control - {None}
        for token in control:
            count, expected = ((row.clean.input_ids == token).sum() for row in (spelled, plain))
            assert count == expected, tokenizer.convert_ids_to_tokens(token)
            assert token not in spelled.token_ids
        (text,) = case.spelling().scored_texts
        assert control & set(tokenizer(text)["input_ids"])  # encoded the ordinary way they would be control tokens
        assert tokenizer.decode(spelled.token_ids).strip() == text
        assert spelled.token_ends[-1] == len(text.encode())

    @pytest.mark.parametrize("size", SIZES)
    def test_a_size_is_scored_or_refused_with_a_code(self, case: Case, size: tuple[int, int]) -> None:
        result = case.load().encoder.try_encode(caption("a", size, "A kite."))
        if size in case.refused:
            assert isinstance(result, Failure)
            assert result.code is FailureCode.IMAGE_UNREADABLE
            assert f"{size[0]} x {size[1]}" in result.message
        else:
            assert isinstance(result, EncodedSample)
