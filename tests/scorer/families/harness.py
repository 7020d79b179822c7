"""What every family is held to. A family's test file subclasses :class:`FamilySuite` and names its checkpoint; a
variant of one whose texts and pictures are encoded alike takes :class:`ScoreSuite`.

Three computations of the same scores are compared, to :data:`TOLERANCE`:

* the fast path, cold and warm, in batches;
* two full forward passes, in batches and one sample at a time;
* transformers' own processor and class, one sample at a time, all logits: no code of ours but the altered images.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from scorer import Sample, Scorer, TokenScores
from scorer.columns import ASKED, asked_for
from scorer.contrasts import CONTRASTS
from scorer.encoding.template import ChatTemplate
from scorer.errors import FailureCode, ModelError
from scorer.forward import FastPath, LabelScores, score_full_forwards
from scorer.forward.attention import Backend, FlexAttention
from scorer.results import Failure, Result
from scorer.types import IMAGE, BoolArray, EncodedSample, Turn
from tests.scorer import distributions
from tests.scorer.families.oracle import (
    oracle_inputs,
    oracle_logits,
    oracle_scores,
    stop_positions,
    text_alone_inputs,
    text_only_oracle_inputs,
)
from tests.scorer.families.samples import SIZES, Case, caption, two_images, two_turns

OTHER_PICTURES = frozenset(name for name, contrast in CONTRASTS.items() if not contrast.constant)
"""Contrasts that are computed like ``blank``, of another picture: a part of the rows will do."""

Pair = tuple[LabelScores, LabelScores]


def encode(scorer: Scorer, rows: Iterable[Sample]) -> list[EncodedSample]:
    return [scorer.encoder.encode(row) for row in rows]


def stops(row: EncodedSample) -> BoolArray:
    """Which of the row's tokens are stop tokens."""
    assert row.is_stop is not None
    return row.is_stop


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


def fast_scores(
    scorer: Scorer, rows: Sequence[EncodedSample], size: int = 7, backend: Backend | None = None
) -> list[list[Pair]]:
    """The fast path's scores, cold and warm, in batches of ``size`` rows in a fixed random order."""
    path = FastPath(scorer.model, scorer.config.contrasts, scorer.config.contrast_cache_bytes, backend)
    order = np.random.default_rng(1).permutation(len(rows))
    passes = []
    for _ in range(2):
        scores: dict[int, Pair] = {}
        for start in range(0, len(rows), size):
            batch = order[start : start + size]
            scores.update(zip(batch, path.score([rows[i] for i in batch]), strict=True))
        passes.append([scores[i] for i in range(len(rows))])
    return passes


def scored(scorer: Scorer, rows: Sequence[EncodedSample]) -> list[TokenScores]:
    """What a run computes."""
    results = scorer.score_batches(rows, 4096)
    assert all(isinstance(result, TokenScores) for result in results), results
    return cast(list[TokenScores], results)


def one_at_a_time(scorer: Scorer, rows: Sequence[EncodedSample]) -> list[Pair]:
    return [score_full_forwards(scorer.model, [row])[0] for row in rows]


def fast_error(scorer: Scorer, rows: Sequence[Sample]) -> float:
    """Largest difference of the fast path from two full passes, one sample at a time: for negative controls."""
    encoded = encode(scorer, rows)
    plain = one_at_a_time(scorer, encoded)
    return max(error(scores, plain) for scores in fast_scores(scorer, encoded))


def plain_text(case: Case) -> list[Sample]:
    """Rows without spelled special tokens, which the processor takes for real ones."""
    return [row for row in case.rows() if row.sample_id != "spelling"]


def text_only(case: Case) -> list[Sample]:
    """The case's rows without their images: only the texts are left."""
    return [
        replace(row, images=(), contrast_images=(), turns=tuple(Turn(turn.role, (turn.text,)) for turn in row.turns))
        for row in plain_text(case)
        if all(turn.text for turn in row.turns)
    ]


def with_columns(scorer: Scorer) -> Scorer:
    """The scorer, of its own (``case.shared()`` returns a copy), with all distribution columns."""
    scorer._begin(replace(scorer.config, distribution_columns=ASKED))
    return scorer


def plain_template(scorer: Scorer, bos: bool) -> Scorer:
    """The scorer with LLaVA's plain template: images and texts with nothing between, BOS in front or nothing."""

    def render(slot: str, messages: list[dict[str, Any]]) -> str:
        parts = [part for message in messages for part in message["content"]]
        return "".join(slot if part["type"] == "image" else part["text"] for part in parts)

    scorer = copy(scorer)
    scorer.encoder = copy(scorer.encoder)
    chat = scorer.encoder._chat = copy(scorer.encoder._chat)
    slot = str(scorer.encoder._processor.image_token)
    chat._template = ChatTemplate(partial(render, slot))
    # Any token that is not the image's will do for BOS: not all tokenizers have one.
    chat._bos = next(i for i in range(9) if i != scorer.encoder.image_token_id) if bos else None
    return scorer


class ScoreSuite:
    """Checks of scores. Subclasses give a fixture ``case``; each test is small, so that a failure names what broke."""

    CONTRASTS: ClassVar = sorted(CONTRASTS)

    @pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
    @pytest.mark.parametrize("contrast", CONTRASTS)
    def test_fast_plain_and_one_at_a_time_agree(self, case: Case, contrast: str, record_property: Any) -> None:
        if contrast not in case.family.contrasts:
            with pytest.raises(ModelError, match=contrast):
                case.shared(contrast)
            return
        scorer = case.shared(contrast)
        fast, other_picture = scorer.checkpoint.family.fast, contrast in OTHER_PICTURES
        rows = encode(scorer, case.few_rows() if other_picture else case.rows())
        assert other_picture or max(len(row.token_ids) for row in rows) >= 300
        plain = score_full_forwards(scorer.model, rows)
        errors = {}
        if fast:
            cold, warm = fast_scores(scorer, rows)
            errors |= {"fast cold": error(cold, plain), "fast warm": error(warm, plain)}
        if contrast in ("blank", "masked") and fast:
            few = rows[-5:]
            packed = fast_scores(scorer, few, size=3, backend=FlexAttention)
            errors |= {"FlexAttention": max(error(scores, plain[-5:]) for scores in packed)}
        if not (fast and other_picture):
            count = len(case.few_rows())
            errors["one at a time"] = error(one_at_a_time(scorer, rows[-count:]), plain[-count:])
        record_property("error", max(errors.values()))
        assert max(errors.values()) <= case.tolerance, errors

    def test_contrasts_share_a_clean_pass(self, case: Case) -> None:
        names = case.family.contrasts
        rows = encode(case.shared().with_contrast(*names), case.few_rows())
        assert all(len(row.branches) == 1 + len(names) for row in rows)
        together = scored(case.shared().with_contrast(*names), rows)
        for place, name in enumerate(names):
            scorer = case.shared(name)
            alone = scored(scorer, encode(scorer, case.few_rows()))
            for ours, own in zip(together, alone, strict=True):
                seen = ours if place == 0 else ours.with_contrast(name)
                for found, expected in ((seen.logit_gap, own.logit_gap), (seen.logprob_contrast, own.logprob_contrast)):
                    if place == 0:  # what rides along changes no byte
                        np.testing.assert_array_equal(found, expected)
                    assert np.abs(found - expected).max() <= case.tolerance * max(1, np.abs(expected).max())
        # One contrast's scores in another's place would be seen. A picture of one pixel has no blur.
        gaps = {
            name: np.concatenate([(one if name == names[0] else one.with_contrast(name)).logit_gap for one in together])
            for name in names
        }
        for a, b in itertools.combinations(names, 2):
            # With an image in front and relative positions, hidden and removed are the same.
            if {a, b} != {"masked", "removed"}:
                assert np.abs(gaps[a] - gaps[b]).max() > case.tolerance, (a, b)

    def test_the_engine_takes_the_fast_path_and_keeps_it(self, case: Case) -> None:
        scorer = case.shared()
        results = scorer.score(case.few_rows())
        assert all(isinstance(result, TokenScores) for result in results)
        assert scorer.path == ("fast" if scorer.checkpoint.family.fast else "plain")

    def test_scores_are_those_of_the_class(self, case: Case, record_property: Any) -> None:
        scorer = case.shared()
        samples = [row for row in plain_text(case) if "short" not in row.sample_id]  # one text of each size will do
        encoded = encode(scorer, samples)
        expected = []
        for sample, row in zip(samples, encoded, strict=True):
            inputs = oracle_inputs(case, scorer, sample)
            branches = zip(inputs, (row.clean, row.contrast), strict=True)
            clean, blank = (oracle_scores(scorer, one, branch.label_index) for one, branch in branches)
            expected.append((clean, blank))
        worst = error(score_full_forwards(scorer.model, encoded), expected)
        if scorer.checkpoint.family.fast:
            worst = max(worst, *(error(scores, expected) for scores in fast_scores(scorer, encoded)))
        record_property("error", worst)
        assert worst <= case.tolerance
        shifted = [(replace(c, logit=np.roll(c.logit, 1)), b) for c, b in expected]  # an off-by-one would be seen
        assert error(score_full_forwards(scorer.model, encoded), shifted) > 0.01

    @pytest.mark.parametrize("passes", ["fast", "plain"])
    def test_distributions_are_those_of_the_class(self, case: Case, passes: str, record_property: Any) -> None:
        scorer = with_columns(case.shared())
        if passes == "plain":
            scorer._fast = None
        elif scorer._fast is None:
            pytest.skip("the family has no fast path")
        samples = [row for row in plain_text(case) if "short" not in row.sample_id]
        encoded = encode(scorer, samples)
        worst, shifted = 0.0, dict.fromkeys((column.name for column in asked_for(ASKED)), 0.0)
        for sample, row, result in zip(samples, encoded, scored(scorer, encoded), strict=True):
            inputs = oracle_inputs(case, scorer, sample)
            indices = (row.clean.label_index, row.contrast.label_index)
            clean, blank = (oracle_logits(scorer, one, index) for one, index in zip(inputs, indices, strict=True))
            expected = distributions.naive(clean, blank, row.token_ids)
            worst = max(worst, distributions.error(result.optional, expected))
            other = distributions.naive(clean.roll(1, 0), blank.roll(1, 0), row.token_ids)
            for name in shifted:  # an off-by-one would be seen
                error = distributions.error({name: result.optional[name]}, {name: other[name]})
                shifted[name] = max(shifted[name], error)
        record_property("error", worst)
        assert scorer.path == passes
        assert worst <= case.tolerance
        assert all(error > 10 * case.tolerance for name, error in shifted.items() if "top1" not in name), shifted

    def test_the_stop_token_is_the_processors_and_scored_as_the_class_predicts_it(self, case: Case) -> None:
        scorer = case.shared()
        samples = [caption("one", (50, 30), "A red kite over boats.")]
        samples += [two_images()] * case.several_images
        samples += [two_turns(images=2 if case.several_images else 1)] * case.several_turns
        tokenizer = scorer.encoder._processor.tokenizer
        every_contrast = scorer.encoder.with_contrast(*case.family.contrasts)
        for sample in samples:
            row = scorer.encoder.encode(sample)
            expected = np.array(stop_positions(case, scorer, sample), np.int64)
            stop = stops(row)
            assert len(expected) == (0 if case.stop_token is None else len(sample.scored_texts))
            for branch in (row.clean, row.contrast):
                np.testing.assert_array_equal(branch.label_index[stop], expected)
            for branch in every_contrast.encode(sample).branches:  # other images may take another number of tokens
                np.testing.assert_array_equal(branch.input_ids[branch.label_index], row.token_ids)
            if case.stop_token is None:
                continue
            assert set(tokenizer.convert_ids_to_tokens(row.token_ids[stop])) == {case.stop_token}
            sizes = [len(text.encode()) for text in sample.scored_texts]
            assert row.token_starts[stop].tolist() == row.token_ends[stop].tolist() == sizes
            theirs = [oracle_scores(scorer, inputs, expected) for inputs in oracle_inputs(case, scorer, sample)]
            computed = [score_full_forwards(scorer.model, [row])]
            if scorer.checkpoint.family.fast:
                computed += fast_scores(scorer, [row])
            for ((clean, blank),) in computed:
                ours = [LabelScores(one.logit[stop], one.logprob[stop]) for one in (clean, blank)]
                assert error([(ours[0], ours[1])], [(theirs[0], theirs[1])]) <= case.tolerance
                shifted = oracle_scores(scorer, oracle_inputs(case, scorer, sample)[0], expected - 1)
                assert error([(ours[0], ours[1])], [(shifted, theirs[1])]) > 0.01  # negative control

    @pytest.mark.parametrize("contrast", ["masked", "removed"])
    def test_scores_without_the_image_are_those_of_the_class(self, case: Case, contrast: str) -> None:
        if contrast not in case.family.contrasts:
            pytest.skip("the family does not define it")
        scorer = case.shared(contrast)
        for sample in plain_text(case)[-4:]:
            row = scorer.encoder.encode(sample)
            inputs = text_only_oracle_inputs(case, scorer, sample)
            expected = oracle_scores(scorer, inputs, row.contrast.label_index)
            ((clean, contrasted),) = score_full_forwards(scorer.model, [row])
            assert error([(clean, contrasted)], [(clean, expected)]) <= case.tolerance

    def test_a_text_only_row_is_what_the_class_makes_of_its_text(self, case: Case) -> None:
        scorer = case.shared()
        samples = text_only(case)
        results = scorer.score(samples)
        for sample, result in zip(samples, results, strict=True):
            assert isinstance(result, TokenScores)
            assert result.text_only
            assert np.isnan(result.logit_gap).all()
            assert np.isnan(result.logprob_clean).all()
            row = scorer.encoder.encode(sample)
            inputs = text_alone_inputs(case, scorer, sample)
            ids = inputs["input_ids"][0].numpy()
            np.testing.assert_array_equal(row.contrast.input_ids, ids[: len(row.contrast.input_ids)])
            expected = self.text_alone(scorer, inputs, row.contrast.label_index).logprob
            worst = np.abs(result.logprob_contrast - expected).max()
            assert worst <= case.tolerance * max(1, np.abs(expected).max())
            shifted = self.text_alone(scorer, inputs, row.contrast.label_index - 1).logprob
            assert np.abs(result.logprob_contrast - shifted).max() > 0.01  # an off-by-one would be seen

    def text_alone(self, scorer: Scorer, inputs: dict[str, Any], label_index: np.ndarray) -> LabelScores:
        """The scores of text without an image by the model's own class."""
        return oracle_scores(scorer, inputs, label_index)

    @pytest.mark.parametrize("passes", ["fast", "plain"])
    def test_text_only_rows_and_others_do_not_change_each_other(self, case: Case, passes: str) -> None:
        scorer = case.shared()
        if passes == "plain":
            scorer._fast = None
        with_images, without = case.few_rows(), text_only(case)
        mixed = [row for pair in zip_longest(without, with_images) for row in pair if row is not None]

        def score(rows: list[Sample]) -> list[Result]:
            return scorer.score_batches(encode(scorer, rows), 8192)

        results = dict(zip(map(id, mixed), score(mixed), strict=True))
        for rows in (with_images, *([row] for row in without)):
            for row, alone in zip(rows, score(rows), strict=True):
                found = results[id(row)]
                assert isinstance(found, TokenScores)
                assert isinstance(alone, TokenScores)
                assert found.text_only == alone.text_only == row.text_only
                for name, values in alone.arrays.items():
                    np.testing.assert_allclose(found.arrays[name], values, atol=10 * case.tolerance, err_msg=name)
                    assert row.text_only or np.array_equal(found.arrays[name], values)


class FamilySuite(ScoreSuite):
    """The checks of scores, and of what is encoded."""

    @pytest.mark.parametrize("bos", [True, False], ids=["bos", "no bos"])
    @pytest.mark.parametrize("contrast", sorted(CONTRASTS))
    def test_an_image_directly_before_the_text_is_scored_alike_or_refused(
        self, case: Case, contrast: str, bos: bool
    ) -> None:
        """Without an image, its first token is predicted by what stands before; where that is nothing, or the image's
        own hidden token, the contrast does not exist."""
        if contrast not in case.family.contrasts:
            pytest.skip("the family does not define it")
        scorer = plain_template(case.shared(contrast), bos)
        samples = [caption(str(n), (50, 30), "A red kite. " * n, prompt="") for n in (1, 2, 3)]
        first = plain_template(case.shared(), bos).encoder.encode(samples[0]).clean
        before = first.input_ids[: first.label_index[0]] == scorer.encoder.image_token_id
        if (contrast == "removed" and before.all()) or (contrast == "masked" and before[-1]):
            results = [scorer.encoder.try_encode(sample) for sample in samples]
            assert {getattr(result, "code", None) for result in results} == {FailureCode.CONTRAST_UNDEFINED}
            message = getattr(results[0], "message", "")
            assert f"'{contrast}'" in message and "prompt" in message and "'blank'" in message
            return
        rows = encode(scorer, samples)
        plain = one_at_a_time(scorer, rows)
        assert error(score_full_forwards(scorer.model, rows), plain) <= case.tolerance
        if scorer.checkpoint.family.fast:
            assert max(error(scores, plain) for scores in fast_scores(scorer, rows)) <= case.tolerance

    def test_a_text_that_nothing_precedes_is_refused(self, case: Case) -> None:
        """Its image follows it, there is no BOS, so that the clean branch has nothing to predict the text from."""
        scorer = plain_template(case.shared(), bos=False)
        (image,) = caption("", (50, 30), "").images
        turns = (Turn("assistant", ("A kite.",)), Turn("user", (IMAGE, "What?")), Turn("assistant", ("A boat.",)))
        result = scorer.encoder.try_encode(Sample("first", (image,), turns))
        assert isinstance(result, Failure)
        assert result.code is FailureCode.TEMPLATE_FAILED, result
        assert "BOS" in result.message

    def test_ids_and_pixels_are_those_of_the_processor(self, case: Case) -> None:
        scorer = case.shared()
        for sample in plain_text(case):
            encoded = scorer.encoder.encode(sample)
            for branch, inputs in zip(
                (encoded.clean, encoded.contrast), oracle_inputs(case, scorer, sample), strict=True
            ):
                ids = inputs["input_ids"][0].numpy()
                np.testing.assert_array_equal(branch.input_ids, ids[: len(branch.input_ids)])
                assert set(branch.pixels) <= set(inputs)
                for name, values in branch.pixels.items():
                    theirs = inputs[name].numpy()
                    if name not in scorer.checkpoint.family.pixel_names:  # per token, like the ids
                        theirs = theirs[:, : values.shape[1]]
                    np.testing.assert_array_equal(values, theirs, err_msg=f"{sample.sample_id}: {name}")
            texts = sample.scored_texts
            for turn, text in enumerate(texts):
                scored = encoded.token_ids[(encoded.token_turns == turn) & ~stops(encoded)]
                assert scorer.encoder._processor.tokenizer.decode(scored).strip() == text.strip()

    def test_special_tokens_in_texts_stay_text(self, case: Case) -> None:
        encoder = case.shared().encoder
        spelled, plain = (encoder.encode(row) for row in (case.spelling(), case.spelling("word")))
        tokenizer = encoder._processor.tokenizer
        control = {tokenizer.convert_tokens_to_ids(token) for token in case.special_tokens} | {encoder.image_token_id}
        assert len(control) >= len(case.special_tokens)
        assert tokenizer.unk_token_id not in control - {None}
        for token in control:
            count, expected = ((row.clean.input_ids == token).sum() for row in (spelled, plain))
            assert count == expected, tokenizer.convert_ids_to_tokens(token)
            assert token not in spelled.token_ids[~stops(spelled)]
        (text,) = case.spelling().scored_texts
        assert control & set(tokenizer(text)["input_ids"])  # encoded the ordinary way they would be control tokens
        assert tokenizer.decode(spelled.token_ids[~stops(spelled)]).strip() == text
        assert spelled.token_ends[-1] == len(text.encode())

    @pytest.mark.parametrize("size", SIZES)
    def test_a_size_is_scored_or_refused_with_a_code(self, case: Case, size: tuple[int, int]) -> None:
        result = case.shared().encoder.try_encode(caption("a", size, "A kite."))
        if size in case.refused:
            assert isinstance(result, Failure)
            assert result.code is FailureCode.IMAGE_SHAPE
            assert f"{size[0]} x {size[1]}" in result.message
        else:
            assert isinstance(result, EncodedSample)
