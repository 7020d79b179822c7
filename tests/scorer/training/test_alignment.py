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

from scorer.errors import SpanError, TableError
from scorer.results import TokenScores
from scorer.spans import project, token_byte_spans
from scorer.training import WeightAligner, WeightedText, WeightRow
from scorer.types import Float32Array
from tests.scorer import tiny
from tests.scorer.training.rows import failed_row, row_of, with_stops
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
    (got,) = WeightAligner(tokenizer, template_weight=1.0)([ids], [labels], [WeightedText(row, answers)])
    assert got.dtype == np.float32
    if not header_trained:  # then the answer's first token may hold the header's last bytes
        assert_allclose(got, naive(tokenizer, ids, labels, answers, row.weights), rtol=1e-6)
    assert (got[np.array(labels) == -100] == 0).all()
    shifted = row.weights.copy()[::-1]  # negative control: other weights, other result
    if not np.array_equal(shifted, row.weights):
        (other,) = WeightAligner(tokenizer, template_weight=1.0)(
            [ids], [labels], [WeightedText(replace(row, weights=shifted), answers)]
        )
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
    (got,) = WeightAligner(tokenizer, template_weight=1.0)([[0]], [[0]], [WeightedText(row, ["ab cde"])])
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
            (got,) = WeightAligner(tokenizer, template_weight=1.0)([ids], [labels], [WeightedText(row, [text])])
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
    (got,) = WeightAligner(tokenizer, template_weight=1.0)([ids], [labels], [WeightedText(row, [text])])
    assert spelled(tokenizer, ids, got) | {0: ""} == {0: "", 1: "<|im_end|>\n", 4: "café", 3: " rouge", 2: " 한"}


def test_several_sequences_of_several_rows() -> None:
    """A batch's rows do not meet: each result is that of its row alone."""
    aligner = WeightAligner(BYTE_LEVEL, template_weight=1.0)
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
    (whole,) = WeightAligner(tokenizer, template_weight=1.0)([ids], [labels], [sample])
    headers = ["assistant", "ASSISTANT:"] if header_trained else []
    for length in range(1, len(ids)):
        aligner = WeightAligner(tokenizer, max_length=length, headers=headers, template_weight=1.0)
        (got,) = aligner([ids[:length]], [labels[:length]], [sample])
        different = np.flatnonzero(got != whole[:length])
        if not header_trained:
            assert len(different) == 0, length
        assert len(different) <= 2  # a cut-off header may end as the text begins
        padded = [ids[:length] + [0] * 5], [labels[:length] + [-100] * 5]
        (behind,) = aligner(*padded, [sample], [length])
        assert_array_equal(behind[:length], got)
    with pytest.raises(SpanError, match=r"row 7 of train\.parquet .*no max_length was given"):
        WeightAligner(tokenizer, template_weight=1.0)([ids[:-4]], [labels[:-4]], [sample])
    with pytest.raises(SpanError, match=f"max_length is {len(ids)}"):
        WeightAligner(tokenizer, max_length=len(ids), template_weight=1.0)([ids[:-4]], [labels[:-4]], [sample])


def test_the_last_turn_only() -> None:
    texts = ["red kite", "two boats"]
    ids, labels = chatml(BYTE_LEVEL, [("What?", text) for text in texts])
    last = [-100] * len(ids)
    start = len(chatml(BYTE_LEVEL, [("What?", texts[0])])[0])
    last[start:] = labels[start:]
    row = row_of(texts, {"red": 5, "two": 4})
    (whole,) = WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [labels], [WeightedText(row, texts)])
    (got,) = WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [last], [WeightedText(row, texts, turns=[1])])
    assert_array_equal(got, np.where(np.arange(len(ids)) >= start, whole, 0))
    with pytest.raises(SpanError, match="is not, or not in this order, in the labelled tokens"):
        WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [last], [WeightedText(row, texts)])


def test_mean_one() -> None:
    text = "A red kite"
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)])
    sample = WeightedText(row_of([text], {"A": 1, "red": 5, "kite": 3}), [text])
    (raw,) = WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [labels], [sample])
    (got,) = WeightAligner(BYTE_LEVEL, mean="sequence", template_weight=1.0)([ids], [labels], [sample])
    assert_allclose(got, raw * 5 / (1 + 5 + 3 + 1 + 1), rtol=1e-6)
    nothing = WeightedText(row_of([text], default=0.0), [text])
    (zeros,) = WeightAligner(BYTE_LEVEL, mean="sequence", template_weight=0)([ids], [labels], [nothing])
    assert not zeros.any()


def test_a_whole_conversation_that_is_trained_on() -> None:
    """The prompt's tokens have the template's weight where the answer stands once."""
    ids, _ = chatml(BYTE_LEVEL, [("What is it?", "red kite")])
    (got,) = WeightAligner(BYTE_LEVEL, template_weight=1.0)(
        [ids], [ids], [WeightedText(row_of(["red kite"], {"red": 5}), ["red kite"])]
    )
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
    (got,) = WeightAligner(SENTENCEPIECE, template_weight=1.0)(
        [encoding.ids], [encoding.ids], [WeightedText(row, [text])]
    )
    assert_allclose(got, wanted)


# --- the stop token ---------------------------------------------------------------------------------------------------


ANSWERS = ["a red kite", "two boats."]
TURNS = [("Which?", ANSWERS[0]), ("And?", ANSWERS[1])]


def stop_positions(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int], labels: Sequence[int]) -> list[int]:
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>" if tokenizer is BYTE_LEVEL else "</s>")
    return [i for i, (token, label) in enumerate(zip(ids, labels, strict=True)) if token == stop and label != -100]


@TRAINERS
@pytest.mark.parametrize("header_trained", [False, True])
def test_a_trainers_stop_token_takes_the_scored_ones_weight(
    tokenizer: PreTrainedTokenizerFast, render: Render, header_trained: bool
) -> None:
    ids, labels = render(tokenizer, TURNS, header_trained)
    plain = row_of(ANSWERS)
    row = with_stops(plain, ANSWERS, {0: 0.25, 1: 4.0})
    (got,) = WeightAligner(tokenizer, template_weight=1.5)([ids], [labels], [WeightedText(row, ANSWERS)])
    (without,) = WeightAligner(tokenizer, template_weight=1.5)([ids], [labels], [WeightedText(plain, ANSWERS)])
    stops = stop_positions(tokenizer, ids, labels)
    assert got[stops].tolist() == [0.25, 4.0]
    assert without[stops].tolist() == [1.5, 1.5]  # an output without it: as before
    np.testing.assert_array_equal(np.delete(got, stops), np.delete(without, stops))
    (only,) = WeightAligner(tokenizer, template_weight=1.0)(
        [ids], [labels], [WeightedText(with_stops(plain, ANSWERS, {1: 4.0}), ANSWERS)]
    )
    assert only[stops].tolist() == [1, 4]


def test_of_several_sequences_and_packed_rows_each_has_its_own() -> None:
    (first, first_labels), (second, second_labels) = (chatml(BYTE_LEVEL, [turn]) for turn in TURNS)
    rows = [with_stops(row_of([text]), [text], {0: weight}) for text, weight in zip(ANSWERS, (0.5, 3.0), strict=True)]
    samples = [WeightedText(row, [text]) for row, text in zip(rows, ANSWERS, strict=True)]
    packed = ([*first, *second], [*first_labels, *second_labels])
    (got,) = WeightAligner(BYTE_LEVEL, template_weight=1.0)([packed[0]], [packed[1]], [samples])
    assert got[stop_positions(BYTE_LEVEL, *packed)].tolist() == [0.5, 3]
    apart = WeightAligner(BYTE_LEVEL, template_weight=1.0)([first, second], [first_labels, second_labels], samples)
    np.testing.assert_array_equal(got, np.concatenate(apart))


def test_white_space_may_stand_before_it_and_nothing_else() -> None:
    row = WeightedText(with_stops(row_of(["a kite"]), ["a kite"], {0: 3.0}), ["a kite"])
    stop = BYTE_LEVEL.convert_tokens_to_ids("<|im_end|>")
    for between, weight in (("", 3), ("\n", 3), (" ", 3), (" END", 1)):
        ids = [*BYTE_LEVEL(f"a kite{between}")["input_ids"], stop, *BYTE_LEVEL("\n")["input_ids"]]
        (got,) = WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [ids], [row])
        assert got[ids.index(stop)] == weight, between
        labels = [-100 if token == stop else token for token in ids]  # not trained on
        (got,) = WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [labels], [row])
        assert got[ids.index(stop)] == 0


def test_a_text_that_was_cut_off_has_none_and_one_that_is_not_trained_on_neither() -> None:
    row = with_stops(row_of(ANSWERS), ANSWERS, {0: 3.0, 1: 5.0})
    ids, labels = chatml(BYTE_LEVEL, TURNS)
    aligner = WeightAligner(BYTE_LEVEL, max_length=len(ids), template_weight=1.0)
    last = stop_positions(BYTE_LEVEL, ids, labels)[1]
    for length in (last, last + 1):
        aligner = WeightAligner(BYTE_LEVEL, max_length=length, template_weight=1.0)
        (got,) = aligner([ids[:length]], [labels[:length]], [WeightedText(row, ANSWERS)])
        assert (5.0 in got) == (length == last + 1)
    cut = last - 1
    pad = [BYTE_LEVEL.convert_tokens_to_ids("<|im_end|>")]  # a stop token behind a text that breaks off is not its own
    (got,) = WeightAligner(BYTE_LEVEL, max_length=cut, template_weight=1.0)(
        [ids[:cut] + pad], [labels[:cut] + pad], [WeightedText(row, ANSWERS)], [cut]
    )
    assert got[-1] == 1
    masked = [-100 if i <= stop_positions(BYTE_LEVEL, ids, labels)[0] else label for i, label in enumerate(labels)]
    (got,) = WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [masked], [WeightedText(row, ANSWERS, turns=(1,))])
    assert got[last] == 5 and 3.0 not in got


def test_white_space_that_the_reference_trims_weighs_what_stands_before_it_also_with_a_stop_token() -> None:
    text = "a kite \n"
    row = row_of(["a kite"], {"kite": 5.0})
    assert row.scores is not None
    row = replace(row, scores=replace(row.scores, text_hash=row_of([text]).scores.text_hash))  # type: ignore[union-attr]
    ids = BYTE_LEVEL(text)["input_ids"]
    plain, stopped = (
        WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [ids], [WeightedText(one, [text])])[0]
        for one in (row, with_stops(row, [text], {0: 9.0}))
    )
    np.testing.assert_array_equal(plain, stopped)
    assert plain[-1] == 5


def test_the_rest_of_a_cut_reference_text_is_refused_as_without_stop_tokens() -> None:
    texts = ["a red kite", "two boats and more"]
    row = with_stops(row_of(texts), texts, {0: 3.0})
    assert row.scores is not None and row.weights is not None
    kept = row.scores.token_ends < 10
    kept |= row.scores.token_turns == 0
    arrays = {name: array[kept] for name, array in row.scores.arrays.items()}
    row = replace(row, scores=TokenScores.from_arrays("s", row.scores.text_hash, arrays), weights=row.weights[kept])
    ids, labels = chatml(BYTE_LEVEL, list(zip(("Which?", "And?"), texts, strict=True)))
    with pytest.raises(SpanError, match="turn 1 has 18 bytes, of which the first 9 were scored"):
        WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [labels], [WeightedText(row, texts)])
    (got,) = WeightAligner(BYTE_LEVEL, unscored=0.5, template_weight=1.0)([ids], [labels], [WeightedText(row, texts)])
    assert got[stop_positions(BYTE_LEVEL, ids, labels)].tolist() == [3, 1]


def test_its_weight_is_checked_and_replaced_like_any_other() -> None:
    ids, labels = chatml(BYTE_LEVEL, TURNS)
    row = with_stops(row_of(ANSWERS), ANSWERS, {1: float("nan")})
    with pytest.raises(SpanError, match="the weight of token 5 is nan"):
        WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [labels], [WeightedText(row, ANSWERS)])
    (got,) = WeightAligner(BYTE_LEVEL, unscored=0.5, template_weight=1.0)([ids], [labels], [WeightedText(row, ANSWERS)])
    assert got[stop_positions(BYTE_LEVEL, ids, labels)].tolist() == [1, 0.5]
    (got,) = WeightAligner(BYTE_LEVEL, unscored=0.5, template_weight=1.0)(
        [ids], [labels], [WeightedText(failed_row(), ANSWERS)]
    )
    assert got[stop_positions(BYTE_LEVEL, ids, labels)].tolist() == [1, 1]


def test_mean_one_counts_it() -> None:
    ids, labels = chatml(BYTE_LEVEL, TURNS[:1])
    row = with_stops(row_of(ANSWERS[:1]), ANSWERS[:1], {0: 9.0})
    (got,) = WeightAligner(BYTE_LEVEL, mean="sequence", template_weight=1.0)(
        [ids], [labels], [WeightedText(row, ANSWERS[:1])]
    )
    labelled = np.array(labels) != -100
    assert got[labelled].mean() == pytest.approx(1)
    assert got[stop_positions(BYTE_LEVEL, ids, labels)[0]] == got.max()


def test_a_record_carries_it_and_one_without_it_is_read() -> None:
    row = with_stops(row_of(ANSWERS), ANSWERS, {0: 0.25, 1: 4.0})
    record = row.to_record()
    assert record["is_stop"] == [False, False, False, True, False, False, True]
    back = WeightRow.from_record(record)
    assert back.scores is not None and back.scores.is_stop.tolist() == record["is_stop"]
    ids, labels = chatml(BYTE_LEVEL, TURNS)
    one, other = (
        WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [labels], [WeightedText(r, ANSWERS)])[0]
        for r in (row, back)
    )
    np.testing.assert_array_equal(one, other)
    plain = row_of(ANSWERS).to_record()
    assert "is_stop" not in plain and not WeightRow.from_record(plain).scores.is_stop.any()  # type: ignore[union-attr]
    with pytest.raises(TableError, match="lists of"):
        WeightRow.from_record({**record, "is_stop": [True]})


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_by_default_template_tokens_have_the_mean_of_their_row(scale: float) -> None:
    """So a method's scale changes no share of the loss: at 0.01, an absolute 1 would put most of Σw on the template."""
    text = "A red kite"
    row = row_of([text], {"A": 1 * scale, "red": 5 * scale, "kite": 3 * scale})
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)], True)
    (got,) = WeightAligner(BYTE_LEVEL)([ids], [labels], [WeightedText(row, [text])])
    (unscaled,) = WeightAligner(BYTE_LEVEL)(
        [ids], [labels], [WeightedText(row_of([text], {"A": 1, "red": 5, "kite": 3}), [text])]
    )
    assert_allclose(got, unscaled * scale, rtol=1e-6)
    header = by_token(BYTE_LEVEL, ids, got)[0]
    assert header[1] == pytest.approx(3 * scale)
    (absolute,) = WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [labels], [WeightedText(row, [text])])
    assert not np.array_equal(absolute, got)  # the control: an absolute weight is another


def test_a_stop_token_that_was_scored_keeps_its_own_weight() -> None:
    text = "A red kite"
    row = with_stops(row_of([text], {"red": 5}), [text], {0: 0.25})
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)])
    (got,) = WeightAligner(BYTE_LEVEL)([ids], [labels], [WeightedText(row, [text])])
    assert by_token(BYTE_LEVEL, ids, got)[-2:] == [
        ("<|im_end|>", 0.25),
        ("\n", pytest.approx((2 + 5 + 2 + 0.25) / 4)),
    ]


def test_the_mean_is_over_the_rows_of_a_sequence_and_unscored_text_counts_as_it_is_told_to() -> None:
    texts = ["A red kite", "two boats"]
    parts = [chatml(BYTE_LEVEL, [("What?", text)]) for text in texts]
    ids, labels = ([*parts[0][k], *parts[1][k]] for k in (0, 1))
    rows = [WeightedText(row_of([texts[0]], {"red": 8}), texts[:1]), WeightedText(row_of([texts[1]]), texts[1:])]
    (got,) = WeightAligner(BYTE_LEVEL)([ids], [labels], [rows])
    ends = [weight for token, weight in by_token(BYTE_LEVEL, ids, got) if token == "<|im_end|>"]
    assert ends == [pytest.approx((2 + 8 + 2 + 2 + 2) / 5)] * 2
    failed = WeightedText(failed_row(), texts[:1])
    (got,) = WeightAligner(BYTE_LEVEL, unscored=0.5)([parts[0][0]], [parts[0][1]], [failed])
    assert {weight for _, weight in by_token(BYTE_LEVEL, parts[0][0], got)} == {0.5}


def test_a_row_that_a_method_drops_whole_weighs_nothing() -> None:
    text = "A red kite"
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)], True)
    row = row_of([text], {"A": 0, "red": 0, "kite": 0})
    (got,) = WeightAligner(BYTE_LEVEL)([ids], [labels], [WeightedText(row, [text])])
    assert not got.any()
