"""Weights on a trainer's tokens: against the naive form, by hand, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from scorer.errors import SpanError
from scorer.spans import project, token_byte_spans
from scorer.training import WeightAligner, WeightedText
from scorer.types import Float32Array
from tests.scorer import tiny
from tests.scorer.training.rows import row_of
from tests.scorer.training.trainers import (
    BYTE_LEVEL,
    SENTENCEPIECE,
    IdsAndLabels,
    by_token,
    chatml,
    spelled,
    vicuna,
)

WORDS = ["red", "kite", "two", "boats", "très", "naïve", "日本語", "🪁", "a", "assistant", "<0x41>", "e\u0301", "x\n"]
captions = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)


Render = Callable[[Any, Sequence[tuple[str, str]], bool], IdsAndLabels]
TRAINERS = pytest.mark.parametrize(("tokenizer", "render"), [(BYTE_LEVEL, chatml), (SENTENCEPIECE, vicuna)])


def naive(tokenizer: Any, ids: list[int], labels: list[int], texts: Sequence[str], weights: Float32Array) -> Any:
    """One token at a time: bytes by ``token_byte_spans`` of each answer alone, weights by a mean over bytes."""
    row = row_of(texts)
    assert row.scores is not None
    out = [0.0 if label == -100 else 1.0 for label in labels]
    at = 0
    for turn, text in enumerate(texts):
        encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        while ids[at : at + len(encoding.ids)] != encoding.ids or labels[at] == -100:
            at += 1
        per_byte = np.full(len(text.encode()), np.nan)
        for i in np.flatnonzero(row.scores.token_turns == turn):
            per_byte[row.scores.token_starts[i] : row.scores.token_ends[i]] = weights[i]
        for start, end in zip(*token_byte_spans(text, encoding.tokens, encoding.offsets), strict=True):
            out[at] = per_byte[start:end].mean() if end > start else 1.0
            at += 1
    return np.array(out, np.float32)


@TRAINERS
@settings(max_examples=60)
@given(st.lists(captions, min_size=1, max_size=3), st.booleans(), st.integers(0, 2**32 - 1))
def test_equals_the_naive_form(
    tokenizer: PreTrainedTokenizerFast, render: Render, answers: list[str], header_trained: bool, seed: int
) -> None:
    """Prompts hold the answers too; answers repeat, hold special characters and the template's own words."""
    answers = [answer.strip() for answer in answers]
    if tokenizer is SENTENCEPIECE:  # which takes the spelling of a byte for the byte
        answers = [answer.replace("<0x41>", "A") for answer in answers]
    ids, labels = render(tokenizer, [(f"Is it {answer}", answer) for answer in answers], header_trained)
    row = row_of(answers)
    assert row.weights is not None
    row.weights[:] = np.random.default_rng(seed).random(len(row.weights)) * 4
    (got,) = WeightAligner(tokenizer)([ids], [labels], [WeightedText(row, answers)])
    assert got.dtype == np.float32
    if not header_trained:  # then the answer's first token may hold the header's last bytes
        assert_allclose(got, naive(tokenizer, ids, labels, answers, row.weights), rtol=1e-6)
    assert (got[np.array(labels) == -100] == 0).all()
    shifted = row.weights.copy()[::-1]  # negative control: other weights, other result
    if not np.array_equal(shifted, row.weights):
        (other,) = WeightAligner(tokenizer)([ids], [labels], [WeightedText(replace(row, weights=shifted), answers)])
        assert not np.array_equal(got, other)


def test_by_hand() -> None:
    """Bytes of "red" weigh 5, of " kite" 3 and all else 1; the end of the turn has the template's weight."""
    text = "A red kite"
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)])
    row = row_of([text], {"A": 1, "red": 5, "kite": 3})
    (got,) = WeightAligner(BYTE_LEVEL, template_weight=0.5)([ids], [labels], [WeightedText(row, [text])])
    assert by_token(BYTE_LEVEL, ids, got) == [("A", 1), (" red", 5), (" kite", 3), ("<|im_end|>", 0.5), ("\n", 0.5)]


def test_tokens_across_words_take_the_mean_over_their_bytes() -> None:
    """A reference token of 2 bytes with weight 5 and one of 4 with weight 2, under one trainer token: (10 + 8) / 6."""
    row = row_of(["ab cde"], {"ab": 5, "cde": 2})
    tokenizer = Tokenizer(models.BPE({"ab▁cde": 0, "a": 1, "b": 2, "▁": 3, "▁a": 4, "▁b": 5}, [("▁", "a"), ("▁", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    (got,) = WeightAligner(tokenizer)([[0]], [[0]], [WeightedText(row, ["ab cde"])])
    assert got.tolist() == [3.0]


@TRAINERS
def test_white_space_that_either_template_trims(tokenizer: PreTrainedTokenizerFast, render: Render) -> None:
    """The dataset's text has white space at its ends; the trainer trims all, some or none of it, and so did the
    reference: a token keeps the weight of what it holds."""
    text = " \n A red kite \n"
    for shown in (text, text.strip(), text.lstrip(), text.rstrip("\n")):
        ids, labels = render(tokenizer, [("What?", shown)], False)
        for trimmed_by_reference in (False, True):
            row = row_of([text], {"A": 1, "red": 5, "kite": 3, "": 3})
            assert row.scores is not None
            if trimmed_by_reference:
                row.scores.token_starts[0] = 3
                row.scores.token_ends[-1] = row.scores.token_starts[-1] = len(text.rstrip())
            (got,) = WeightAligner(tokenizer)([ids], [labels], [WeightedText(row, [text])])
            heavy = "".join(word for word, weight in by_token(tokenizer, ids, got) if weight == 5)
            assert heavy.strip() == "red", (shown, trimmed_by_reference)
            assert sum(weight == 3 for _, weight in by_token(tokenizer, ids, got)) >= 1


@pytest.mark.parametrize("trimmed_by_reference", [False, True])
def test_white_space_weighs_what_stands_next_to_it(trimmed_by_reference: bool) -> None:
    """Where the trainer keeps white space at a text's ends, whether the reference saw it or not."""
    text = "\n\n A kite\n"
    row = row_of([text], {"A": 4, "kite": 3, "": 3})
    assert row.scores is not None
    if trimmed_by_reference:  # its spans begin at "A" and end with "kite"
        row.scores.token_starts[0] = 3
        row.scores.token_starts[-1] = row.scores.token_ends[-1] = len(text) - 1
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)])
    (got,) = WeightAligner(BYTE_LEVEL, template_weight=0.5)([ids], [labels], [WeightedText(row, [text])])
    by_weight = spelled(BYTE_LEVEL, ids, got)
    assert (by_weight[4], by_weight[3], by_weight[0.5]) == ("\n\n A", " kite\n", "<|im_end|>\n")


def test_a_normalising_tokenizer() -> None:
    """Qwen's composes e + accent to one character: the token has the weight of both."""
    tokenizer = tiny.byte_level_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    text = "cafe\u0301 rouge \u1112\u1161\u11ab"  # decomposed Hangul
    ids, labels = chatml(tokenizer, [("What?", text)])
    row = row_of([text], {"cafe\u0301": 4, "rouge": 3, "\u1112\u1161\u11ab": 2})
    (got,) = WeightAligner(tokenizer)([ids], [labels], [WeightedText(row, [text])])
    assert spelled(tokenizer, ids, got) | {0: ""} == {0: "", 1: "<|im_end|>\n", 4: "café", 3: " rouge", 2: " 한"}


def test_several_sequences_of_several_rows() -> None:
    """A batch's rows do not meet: each result is that of its row alone."""
    aligner = WeightAligner(BYTE_LEVEL)
    conversations = [["red kite", "two boats"], ["two boats"], ["a", "a", "a"]]
    parts = [chatml(BYTE_LEVEL, [("Why?", text) for text in texts]) for texts in conversations]
    samples = [WeightedText(row_of(texts, {"red": 5, "two": 4, "a": 3}), texts) for texts in conversations]
    ids, labels = zip(*parts, strict=True)
    together = aligner(ids, labels, samples)
    for got, one_ids, one_labels, sample in zip(together, ids, labels, samples, strict=True):
        assert_array_equal(got, aligner([one_ids], [one_labels], [sample])[0])
    joined = [[i for one in ids for i in one]], [[i for one in labels for i in one]]
    packed = aligner(*joined, [samples])
    assert_array_equal(packed[0], np.concatenate(together))
    with pytest.raises(SpanError, match="a text is not, or not in this order"):  # negative control: another order
        aligner(*joined, [[samples[1], samples[0], samples[2]]])


@TRAINERS
@pytest.mark.parametrize("header_trained", [False, True])
def test_cut_off_at_every_length(tokenizer: PreTrainedTokenizerFast, render: Render, header_trained: bool) -> None:
    """A sequence that the trainer cuts has the weights that it has uncut, as far as it goes."""
    texts = ["A red kite over two boats", "naïve 日本語 🪁"]
    ids, labels = render(tokenizer, [("What?", text) for text in texts], header_trained)
    sample = WeightedText(row_of(texts, {"red": 5, "two": 4, "naïve": 3}), texts)
    (whole,) = WeightAligner(tokenizer)([ids], [labels], [sample])
    for length in range(1, len(ids)):
        (got,) = WeightAligner(tokenizer, max_length=length)([ids[:length]], [labels[:length]], [sample])
        different = np.flatnonzero(got != whole[:length])
        if not header_trained:
            assert len(different) == 0, length
        assert len(different) <= 2  # a cut-off header may end as the text begins
        padded = [ids[:length] + [0] * 5], [labels[:length] + [-100] * 5]
        (behind,) = WeightAligner(tokenizer, max_length=length)(*padded, [sample], [length])
        assert_array_equal(behind[:length], got)
    with pytest.raises(SpanError, match=r"row 7 of train\.parquet .*no max_length was given"):
        WeightAligner(tokenizer)([ids[:-4]], [labels[:-4]], [sample])
    with pytest.raises(SpanError, match=f"max_length is {len(ids)}"):
        WeightAligner(tokenizer, max_length=len(ids))([ids[:-4]], [labels[:-4]], [sample])


def test_the_last_turn_only() -> None:
    texts = ["red kite", "two boats"]
    ids, labels = chatml(BYTE_LEVEL, [("What?", text) for text in texts])
    last = [-100] * len(ids)
    start = len(chatml(BYTE_LEVEL, [("What?", texts[0])])[0])
    last[start:] = labels[start:]
    row = row_of(texts, {"red": 5, "two": 4})
    (whole,) = WeightAligner(BYTE_LEVEL)([ids], [labels], [WeightedText(row, texts)])
    (got,) = WeightAligner(BYTE_LEVEL)([ids], [last], [WeightedText(row, texts, turns=[1])])
    assert_array_equal(got, np.where(np.arange(len(ids)) >= start, whole, 0))
    with pytest.raises(SpanError, match="is not, or not in this order, in the labelled tokens"):
        WeightAligner(BYTE_LEVEL)([ids], [last], [WeightedText(row, texts)])


def test_mean_one() -> None:
    text = "A red kite"
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)])
    sample = WeightedText(row_of([text], {"A": 1, "red": 5, "kite": 3}), [text])
    (raw,) = WeightAligner(BYTE_LEVEL)([ids], [labels], [sample])
    (got,) = WeightAligner(BYTE_LEVEL, normalize="mean")([ids], [labels], [sample])
    assert_allclose(got, raw * 5 / (1 + 5 + 3 + 1 + 1), rtol=1e-6)
    nothing = WeightedText(row_of([text], default=0.0), [text])
    (zeros,) = WeightAligner(BYTE_LEVEL, normalize="mean", template_weight=0)([ids], [labels], [nothing])
    assert not zeros.any()


def test_a_whole_conversation_that_is_trained_on() -> None:
    """The prompt's tokens have the template's weight where the answer stands once."""
    ids, _ = chatml(BYTE_LEVEL, [("What is it?", "red kite")])
    (got,) = WeightAligner(BYTE_LEVEL)([ids], [ids], [WeightedText(row_of(["red kite"], {"red": 5}), ["red kite"])])
    by_weight = spelled(BYTE_LEVEL, ids, got)
    assert (by_weight[5], by_weight[2]) == ("red", " kite")
    assert "What is it?" in by_weight[1]


def test_projection_is_what_carries() -> None:
    """One row through the aligner and through ``project`` by hand."""
    text = "there is a naïve red 🪁"
    row = row_of([text], {"naïve": 4, "red": 5, "🪁": 3})
    assert row.scores is not None
    assert row.weights is not None
    encoding = SENTENCEPIECE.backend_tokenizer.encode(text, add_special_tokens=False)
    starts, ends = token_byte_spans(text, encoding.tokens, encoding.offsets)
    wanted = project(row.weights, row.scores.token_starts, row.scores.token_ends, starts, ends, empty=1.0)
    (got,) = WeightAligner(SENTENCEPIECE)([encoding.ids], [encoding.ids], [WeightedText(row, [text])])
    assert_allclose(got, wanted)
