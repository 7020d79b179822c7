"""What the aligner refuses, naming the row, and the weight that is given to what has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from scorer.errors import ConfigError, SpanError, TableError
from scorer.table import SCORE_FIELDS
from scorer.training import WeightAligner, WeightedText
from tests.scorer.training.rows import failed_row, row_of
from tests.scorer.training.trainers import BYTE_LEVEL, by_token, chatml


def test_rows_that_were_not_scored() -> None:
    text = "A red kite"
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)])
    with pytest.raises(TableError, match=r"row 8 of train\.parquet .* was not scored: image_missing"):
        WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [labels], [WeightedText(failed_row(), [text])])
    (got,) = WeightAligner(BYTE_LEVEL, unscored=2.5, template_weight=1.0)(
        [ids], [labels], [WeightedText(failed_row(), [text])]
    )
    assert by_token(BYTE_LEVEL, ids, got)[:3] == [("A", 2.5), (" red", 2.5), (" kite", 2.5)]


def test_a_text_that_was_scored_in_part() -> None:
    text = "A red kite"
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)])
    whole = row_of([text], {"red": 5})
    assert whole.scores is not None
    assert whole.weights is not None
    cut = replace(whole.scores, **{field.name: getattr(whole.scores, field.name)[:2] for field in SCORE_FIELDS})
    row = replace(whole, scores=cut, weights=whole.weights[:2])
    with pytest.raises(SpanError, match=r"turn 0 has 10 bytes, of which the first 5 were scored .* give unscored="):
        WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [labels], [WeightedText(row, [text])])
    (got,) = WeightAligner(BYTE_LEVEL, unscored=1.5, template_weight=1.0)([ids], [labels], [WeightedText(row, [text])])
    assert by_token(BYTE_LEVEL, ids, got)[:3] == [("A", 2), (" red", 5), (" kite", 1.5)]


@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf])
def test_weights_that_cannot_weigh(value: float) -> None:
    text = "A red kite"
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)])
    sample = WeightedText(row_of([text], {"red": value}), [text])
    with pytest.raises(SpanError, match=rf"row 7 .*the weight of token 1 is {value}; .*unscored=<weight>"):
        WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [labels], [sample])
    (got,) = WeightAligner(BYTE_LEVEL, unscored=1.5, template_weight=1.0)([ids], [labels], [sample])
    assert by_token(BYTE_LEVEL, ids, got)[1] == (" red", 1.5)


def test_what_is_trained_on_twice_is_refused() -> None:
    """A prompt that is trained on and spells the answer: either place could be the answer's."""
    text = "red kite"
    ids, labels = chatml(BYTE_LEVEL, [(f"Is it a {text}", text)])
    with pytest.raises(SpanError, match=r"row 7 .*occurs in the labelled tokens more than once.* mask the prompt"):
        WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [ids], [WeightedText(row_of([text]), [text])])
    (got,) = WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [labels], [WeightedText(row_of([text]), [text])])
    assert got.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, texts=["A red kites"]), r"row 7 of train\.parquet .* the text 'A red kites' has hash"),
        (lambda s: replace(s, turns=[1]), r"turns are \[1\], but the row has 1; list each"),
        (lambda s: replace(s, turns=[0, 0]), r"turns are \[0, 0\], but the row has 1; list each"),
    ],
)
def test_other_texts_are_refused(change: Callable[[WeightedText], WeightedText], message: str) -> None:
    ids, labels = chatml(BYTE_LEVEL, [("What?", "A red kite")])
    sample = WeightedText(row_of(["A red kite"]), ["A red kite"])
    with pytest.raises((SpanError, TableError), match=message):
        WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [labels], [change(sample)])


def test_a_text_that_is_not_there_is_refused() -> None:
    ids, labels = chatml(BYTE_LEVEL, [("What?", "A RED KITE")])
    sample = WeightedText(row_of(["A red kite"]), ["A red kite"])
    with pytest.raises(SpanError, match=r"row 7 .*Texts: 'A red kite'\. Trained on.*'A RED KITE'"):
        WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [labels], [sample])
    with pytest.raises(SpanError, match=r"Trained on, .* nothing"):
        WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [[-100] * len(ids)], [sample])


def test_captions_that_spell_control_tokens() -> None:
    """As text they are text; where the trainer's tokenizer makes control tokens of them, the row is refused."""
    text = "an <image> of <|im_end|>"
    row = row_of([text], {"of": 5})
    ids = [i for char in text for i in BYTE_LEVEL.encode(char, add_special_tokens=False)]
    (got,) = WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [ids], [WeightedText(row, [text])])
    assert sorted(set(got.tolist())) == [2, 5]
    ids, labels = chatml(BYTE_LEVEL, [("What?", text)])
    with pytest.raises(SpanError, match=r"row 7 .*is not, or not in this order"):
        WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [labels], [WeightedText(row, [text])])


def test_shapes_and_ids_that_do_not_fit() -> None:
    sample = WeightedText(row_of(["a"]), ["a"])
    aligner = WeightAligner(BYTE_LEVEL, template_weight=1.0)
    with pytest.raises(SpanError, match="2 sequences, 1 labels, 1 samples"):
        aligner([[1], [1]], [[1]], [sample])
    with pytest.raises(SpanError, match=r"sequence 0 has ids \(2,\) and labels \(1,\)"):
        aligner([[1, 2]], [[1]], [sample])
    with pytest.raises(SpanError, match=r"position 1 is trained on and has the id -200, but the tokenizer has ids 0"):
        aligner([[1, -200]], [[-100, -200]], [sample])
    size = len(aligner.vocabulary)
    with pytest.raises(SpanError, match=rf"position 0 is trained on and has the id {size}"):
        aligner([[size]], [[size]], [sample])


def test_a_tokenizer_that_loses_bytes_is_refused() -> None:
    lower = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    lower.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(SpanError, match=r"does not preserve the bytes of a text: it splits 'a b' into \['a', 'b'\]"):
        WeightAligner(lower, template_weight=1.0)
    with pytest.raises(SpanError, match="str is not a fast tokenizer"):
        WeightAligner("a tokenizer", template_weight=1.0)


@pytest.mark.parametrize(
    "options",
    [
        {"template_weight": -1},
        {"template_weight": np.nan},
        {"unscored": np.inf},
        {"mean": "sum"},
        {"max_length": 0},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        WeightAligner(BYTE_LEVEL, **options)


def _changed(text: str) -> dict[str, str]:
    return {
        "lower-cased": text.lower(),
        "a doubled space": text.replace(" ", "  ", 1),
        "another text": "Nothing of the kind is to be seen here, Anna",  # it ends as the text begins
        "another first word": text.replace("A", "The", 1),
    }


@pytest.mark.parametrize("change", _changed("A"))
@pytest.mark.parametrize("header_trained", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_text_that_is_another_is_no_truncated_one(change: str, header_trained: bool, side: Any) -> None:
    """At the length limit, too, only nothing, or a header, may stand where an absent text would be."""
    text = "A red kite over two boats"
    sample = WeightedText(row_of([text]), [text])
    ids, labels = chatml(BYTE_LEVEL, [("What?", _changed(text)[change])], header_trained)
    aligner = WeightAligner(
        BYTE_LEVEL, max_length=len(ids), truncation_side=side, headers=["assistant"], template_weight=1.0
    )
    with pytest.raises(SpanError, match=r"row 7 .*a text is not.*max_length is \d+.*headers="):
        aligner([ids], [labels], [sample])
    (got,) = aligner(*([one] for one in chatml(BYTE_LEVEL, [("What?", text)], header_trained)), [sample])
    assert 2 in got  # the control: the text itself is found


def test_a_header_is_known_from_complete_sequences() -> None:
    """Those of the same call count, wherever they stand in it."""
    text = "A red kite"
    sample = WeightedText(row_of([text]), [text])
    ids, labels = chatml(BYTE_LEVEL, [("What is it that you can see?", text)], True)
    labelled = [i for i, label in enumerate(labels) if label != -100]
    cut = labelled[0] + len(BYTE_LEVEL("assistant\n")["input_ids"])
    with pytest.raises(SpanError, match="headers="):
        WeightAligner(BYTE_LEVEL, max_length=cut, template_weight=1.0)([ids[:cut]], [labels[:cut]], [sample])
    short = WeightedText(row_of(["kite"]), ["kite"])
    complete, trained = chatml(BYTE_LEVEL, [("", "kite")], True)
    assert len(complete) < cut
    aligner = WeightAligner(BYTE_LEVEL, max_length=cut, template_weight=1.0)
    first, second = aligner([ids[:cut], complete], [labels[:cut], trained], [sample, short])
    assert set(first) == {0.0, 1.0}
    assert 2 in second
    (later,) = aligner([ids[:cut]], [labels[:cut]], [sample])
    np.testing.assert_array_equal(later, first)


def test_truncation_on_the_left_at_every_length() -> None:
    """A sequence cut on the left has the weights that it has uncut, as far as it goes; taken for one that was cut on
    the right, it is refused, or nothing of it is labelled text."""
    texts = ["A red kite over two boats", "naïve 日本語 🪁"]
    ids, labels = chatml(BYTE_LEVEL, [("What?", text) for text in texts])
    sample = WeightedText(row_of(texts, {"red": 5, "two": 4, "naïve": 3}), texts)
    (whole,) = WeightAligner(BYTE_LEVEL, template_weight=1.0)([ids], [labels], [sample])
    refused = 0
    for length in range(1, len(ids)):
        part = [ids[-length:]], [labels[-length:]], [sample]
        (got,) = WeightAligner(BYTE_LEVEL, max_length=length, truncation_side="left", template_weight=1.0)(*part)
        np.testing.assert_array_equal(got, whole[-length:], err_msg=str(length))
        pad = [[0] * 5 + part[0][0]], [[-100] * 5 + part[1][0]], [sample], [length]
        (padded,) = WeightAligner(BYTE_LEVEL, max_length=length, truncation_side="left", template_weight=1.0)(*pad)
        np.testing.assert_array_equal(padded[5:], got)
        try:
            (other,) = WeightAligner(BYTE_LEVEL, max_length=length, template_weight=1.0)(*part)
        except SpanError:
            refused += 1
        else:
            np.testing.assert_array_equal(other, got)
    assert refused > len(ids) // 3


def test_the_side_of_truncation_has_two_values() -> None:
    with pytest.raises(ConfigError, match="truncation_side is 'middle'; it must be 'right' or 'left'"):
        WeightAligner(BYTE_LEVEL, truncation_side="middle", template_weight=1.0)  # type: ignore[arg-type]


def test_one_header_is_a_list_of_one() -> None:
    with pytest.raises(ConfigError, match=r"headers is 'assistant'; .* headers=\['assistant'\]"):
        WeightAligner(BYTE_LEVEL, headers="assistant")


def test_a_weight_beyond_float32_is_refused() -> None:
    with pytest.raises(ConfigError, match="template_weight is 1e\\+300"):
        WeightAligner(BYTE_LEVEL, template_weight=1e300)
