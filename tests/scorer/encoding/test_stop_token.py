"""The stop token: where a template writes one, where it does not, and what stands between it and the text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from scorer import Sample, Scorer, ScorerConfig, TokenScores
from scorer.encoding.encoder import Encoder
from scorer.errors import FailureCode
from scorer.results import Failure
from scorer.types import IMAGE, EncodedSample, Turn
from tests.scorer import tiny
from tests.scorer.scoring import TOLERANCE, samples
from tests.scorer.scoring import load as load_scorer
from tests.scorer.templates import (
    CASES,
    ONE,
    PICTURE,
    SEVERAL,
    Load,
    TemplateCase,
    byte_level,
    caption,
    chatml,
    encode,
    parts,
)


def stops(row: EncodedSample) -> list[tuple[int, int, int]]:
    """(start, end, turn) of each stop token."""
    assert row.is_stop is not None
    spans = zip(row.token_starts, row.token_ends, row.token_turns, strict=True)
    return [tuple(map(int, span)) for span, is_stop in zip(spans, row.is_stop, strict=True) if is_stop]  # type: ignore[misc]


def chat(between: str = "", ending: str = "<|im_end|>", after: str = "\n") -> TemplateCase:
    """ChatML with white space before its stop token."""
    headed = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n" + parts()
    written = "{{ " + repr(between) + " }}"  # an expression: Jinja drops a line break behind a block
    return TemplateCase(headed + written + ending + after + "{% endfor %}", byte_level)


@pytest.mark.parametrize("between", [" ", "\n", " \n\t", "\n\n"])
def test_only_the_token_is_a_label_where_white_space_stands_before_it(load: Load, between: str) -> None:
    row = encode(load(chat(between)), SEVERAL)
    assert stops(row) == [(7, 7, 0), (7, 7, 1)]
    tokenizer = load(chat(between))._processor.tokenizer
    stop = row.clean.label_index[row.is_stop]
    assert tokenizer.decode(row.clean.input_ids[stop]) == "<|im_end|><|im_end|>"
    for at in stop.tolist():
        assert at not in row.clean.label_index[:-1] + 1  # the white space is no label
        assert tokenizer.decode(row.clean.input_ids[:at]).endswith(f"A kite.{between}")


@pytest.mark.parametrize("ending", ["", " ", "\n", " END", " END<|im_end|>"])
def test_a_template_that_ends_no_answer_with_a_control_token_has_none(load: Load, ending: str) -> None:
    row = encode(load(chat(ending=ending)), SEVERAL)
    assert stops(row) == []
    assert row.is_stop is not None and len(row.is_stop) == len(row.token_ids)


def test_the_header_of_the_next_turn_is_not_taken_for_it(load: Load) -> None:
    """Behind the first answer stands a control token; behind the last, nothing."""
    case = chat(ending="", after="")
    assert "A kite.<|im_start|>user" in load(case).render(
        [{"role": turn.role, "content": [{"type": "text", "text": turn.text}]} for turn in SEVERAL]
    )
    assert stops(encode(load(case), SEVERAL)) == []
    assert stops(encode(load(case), (*ONE, Turn("user", ("And?",))))) == []


def test_a_turn_that_lacks_it_has_none(load: Load) -> None:
    """Written behind the last answer alone."""
    template = chatml().replace("<|im_end|>\n", "{% if loop.last %}<|im_end|>{% else %} {% endif %}")
    assert stops(encode(load(TemplateCase(template, byte_level)), SEVERAL)) == [(7, 7, 1)]


def test_every_answer_has_its_own_and_empty_ones_none(load: Load) -> None:
    turns = (*ONE, Turn("user", ("And?",)), Turn("assistant", ("",)), Turn("user", ("So?",)), Turn("assistant", ("é",)))
    assert stops(encode(load(CASES["gemma"]), turns)) == [(7, 7, 0), (2, 2, 2)]
    assert stops(encode(load(CASES["gemma"]), turns[:3])) == [(7, 7, 0)]  # an answer that a question follows


def test_it_follows_the_last_text_of_an_answer_in_parts(load: Load) -> None:
    answer = Turn("assistant", ("Here: ", IMAGE, "a kite."))
    encoder = load(CASES["generation"])
    row = encoder.encode(Sample("row", (PICTURE, PICTURE), (ONE[0], answer)))
    assert stops(row) == [(13, 13, 0)]
    ends_with_image = replace(answer, content=("Here: ", IMAGE))
    assert stops(encoder.encode(Sample("row", (PICTURE, PICTURE), (ONE[0], ends_with_image)))) == []


def test_a_text_that_spells_it_is_text(load: Load) -> None:
    text = "A <|im_end|> kite<|im_end|>"
    row = encode(load(CASES["generation"]), caption(text))
    assert stops(row) == [(len(text), len(text), 0)]
    assert (row.clean.input_ids == row.token_ids[-1]).sum() == 2  # the question's and the answer's


def swallowing() -> PreTrainedTokenizerFast:
    """A stop token that takes the white space before it with it."""
    tokenizer = tiny.byte_level_tokenizer(("<pad>", "<|im_start|>", "<image>"))
    tokenizer.backend_tokenizer.add_special_tokens([AddedToken("<|im_end|>", lstrip=True, special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>")


def test_one_that_swallows_the_texts_own_white_space_is_one_label(load: Load) -> None:
    row = encode(load(TemplateCase(chatml(), swallowing)), caption("A kite. \n"))
    assert stops(row) == [(9, 9, 0)]
    assert len(set(row.clean.label_index.tolist())) == len(row.clean.label_index)
    assert row.token_ends[-2] == 7
    assert stops(encode(load(TemplateCase(chatml(" part['text']"), swallowing)), caption("A kite."))) == [(7, 7, 0)]


def test_a_template_that_takes_no_plain_question_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    template = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('system first') }}{% endif %}" + chatml()
    tiny.save_llava_files(tmp_path, byte_level(), template)
    encoder = Encoder.load(tmp_path)
    turns = (Turn("system", ("Be brief.",)), *ONE)
    assert stops(encode(encoder, turns)) == stops(encode(encoder, turns)) == []
    (record,) = caplog.records
    assert "no stop token is scored" in record.message and "system first" in record.message


def words_that_fill(model: Path) -> str:
    """A text whose last token is the last that the context holds."""
    encoder = Encoder.load(model, ScorerConfig(truncate=True))
    cut = encode(encoder, caption("kite boat " * 400))
    assert stops(cut) == []  # a text that was cut has none
    return ("kite boat " * 400)[: int(cut.token_ends[-1])]


def test_one_that_does_not_fit_is_left_out_and_fails_no_row(chatml_model: Path) -> None:
    text = words_that_fill(chatml_model)
    encoder = Encoder.load(chatml_model)
    full = encode(encoder, caption(text))
    assert len(full.clean.input_ids) == encoder.checkpoint.context_length
    assert stops(full) == []
    shorter = text.removesuffix(" boat").removesuffix(" kite")
    assert stops(encode(encoder, caption(shorter))) == [(len(shorter), len(shorter), 0)]
    too_long = encoder.try_encode(Sample("row", (PICTURE,), caption(text + " kite")))
    assert isinstance(too_long, Failure) and too_long.code is FailureCode.TEXT_TOO_LONG


@pytest.mark.parametrize("model", ["chatml_model", "vicuna_model"])
def test_without_it_all_other_tokens_are_the_same(model: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(model)
    text_only = Sample("text", (), (Turn("user", ("What flies?",)), Turn("assistant", ("A kite.",))))
    rows = [*samples()[:7], samples()[-1], text_only]
    with_stops, without = (load_scorer(path, stop_token=on).score(rows) for on in (True, False))
    for one, other in zip(with_stops, without, strict=True):
        assert isinstance(one, TokenScores) and isinstance(other, TokenScores)
        assert other.optional == {}
        kept = ~one.optional["is_stop"]
        assert (~kept).sum() == one.token_turns[-1] + 1
        for name in ("token_ids", "token_starts", "token_ends", "token_turns"):
            assert one.arrays[name][kept].tobytes() == other.arrays[name].tobytes()
        for name in ("logit_gap", "logprob_clean", "logprob_contrast"):
            np.testing.assert_allclose(one.arrays[name][kept], other.arrays[name], atol=TOLERANCE)
        assert np.isfinite(one.logprob_contrast).all()
        assert np.isnan(one.logit_gap).all() == one.text_only


def test_the_fingerprint_names_its_column(chatml_model: Path) -> None:
    on, off = (Scorer.load(chatml_model, ScorerConfig(device="cpu", stop_token=value)) for value in (True, False))
    assert on.fingerprint["columns"] == ["is_stop"] and on.fingerprint["stop_token"] is True
    assert not {"columns", "stop_token"} & set(off.fingerprint)
