"""Chat templates of many shapes: the model is shown what Hugging Face renders, and spans refer to the given text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from tokenizers import normalizers

from scorer.encoding.encoder import Encoder
from scorer.encoding.rendering import ChatTokenizer
from scorer.errors import FailureCode, RowError
from scorer.messages import to_messages
from scorer.results import Failure
from scorer.types import IMAGE, Sample, Turn
from tests.scorer import templates, tiny
from tests.scorer.templates import (
    CAPTION,
    CASES,
    ONE,
    PICTURE,
    SEVERAL,
    WITH_SYSTEM,
    Load,
    TemplateCase,
    assert_ids_are_hugging_faces,
    caption,
    chatml_case,
    encode,
    hugging_face_inputs,
)

IMAGE_TOKENS = 16


MARKS = "[⟦⟧⟪⟫]"


def labels_of(encoder: Encoder, marked: str) -> list[tuple[int, int, int, int, bool]]:
    """(position, start, end, turn, whether it is a stop token) of every token that lies in a text in ⟦ ⟧, or is a stop
    token in ⟪ ⟫, by the tokenizer's own offsets."""
    ranges: list[tuple[int, int]] = []
    stops: dict[int, int] = {}
    prompt = ""
    for mark, piece in re.findall(f"({MARKS}?)([^⟦⟧⟪⟫]*)", marked):
        if mark == "⟦":
            ranges.append((len(prompt), len(prompt) + len(piece)))
        if mark == "⟪":
            stops[len(prompt)] = len(ranges) - 1
        prompt += piece
    tokenizer = encoder._processor.tokenizer
    bos = tokenizer.bos_token
    add_bos = bos is not None and not prompt.startswith(bos)
    encoded = tokenizer(prompt, add_special_tokens=add_bos, return_offsets_mapping=True)
    labels, position = [], 0
    for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        for turn, (first, last) in enumerate(ranges):
            if start < last and end > first:
                labels.append((position, max(start, first) - first, min(end, last) - first, turn, False))
        if start < end and start in stops:
            size = len(CAPTION)
            labels.append((position, size, size, stops[start], True))
        position += IMAGE_TOKENS if token == encoder.image_token_id else 1
    return labels


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("several", [False, True], ids=["one turn", "several"])
def test_ids_positions_and_spans(load: Load, name: str, several: bool) -> None:
    case = CASES[name]
    encoder = load(case)
    turns, marked = (case.turns, case.several) if several else (ONE, case.one)
    assert encoder.render(to_messages(turns)) == re.sub(MARKS, "", marked)
    row = encode(encoder, turns)
    assert_ids_are_hugging_faces(encoder, row, turns)
    assert row.is_stop is not None
    ours = zip(row.clean.label_index, row.token_starts, row.token_ends, row.token_turns, row.is_stop, strict=True)
    expected = labels_of(encoder, marked)
    assert [tuple(int(x) for x in label) for label in ours] == expected
    assert sum(is_stop for *_, is_stop in expected) == marked.count("⟦")


def test_scored_tokens_are_those_of_hugging_faces_generation_mask(load: Load) -> None:
    encoder = load(CASES["generation"])
    mask = hugging_face_inputs(encoder, SEVERAL, return_assistant_tokens_mask=True)["assistant_masks"][0]
    row = encode(encoder, SEVERAL)
    assert row.is_stop is not None and row.is_stop.sum() == 2  # this template's own mask leaves them out
    np.testing.assert_array_equal(row.clean.label_index[~row.is_stop], np.flatnonzero(mask))


# What a template must not do


def refusal(encoder: Encoder, turns: Sequence[Turn]) -> str:
    failure = encoder.try_encode(Sample("row", (PICTURE,), tuple(turns)))
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.TEMPLATE_FAILED
    assert "use another reference model" in failure.message
    return failure.message


LIVELY = 'A "kite" & <b>Boats\'s</b> sail.'


@pytest.mark.parametrize("change", ["upper", "lower", "title", "replace('kite', 'boat')", "tojson"])
def test_a_template_that_changes_a_text_is_refused(load: Load, change: str) -> None:
    assert "changes message" in refusal(load(chatml_case(f"part['text'] | {change}")), caption(LIVELY))


def test_a_template_that_cuts_texts_short_is_refused(load: Load) -> None:
    message = refusal(load(chatml_case("part['text'][:5]")), caption(LIVELY))
    assert "drops message 0 (user), message 1 (assistant);" in message


@pytest.mark.parametrize(
    "expression",
    [
        "part['text'] | trim | trim('.')",
        "part['text'] ~ (' indeed' if 'kite' in part['text'] else '')",
        "('sure: ' if 'kite' in part['text'] else '') ~ part['text']",
        "part['text'] if 'kite' not in part['text'] else ''",
    ],
)
def test_a_template_that_words_a_prompt_by_its_texts_is_refused(load: Load, expression: str) -> None:
    assert "depends on what a text says" in refusal(load(chatml_case(expression)), caption(LIVELY))


@pytest.mark.parametrize("words", [("flies <image>", "dives <image>", ""), ("<image>", "<image>", " It flies.")])
def test_words_before_the_first_and_behind_the_last_text_count_too(words: tuple[str, str, str]) -> None:
    """Of equal length in front, and more of them behind: the texts alone would fit."""
    of_kites, of_others, more_of_kites = words

    def render(messages: list[dict[str, Any]]) -> str:
        text = joined(messages)
        return of_kites + text + more_of_kites if "kite" in text else of_others + text

    with pytest.raises(RowError, match="depends on what a text says") as caught:
        tokenizer_of(render).encode(caption("A kite."), ["<image>"])
    assert caught.value.code is FailureCode.TEMPLATE_FAILED


def test_a_template_that_leaves_this_text_alone_is_not(load: Load) -> None:
    encoder = load(chatml_case("part['text'] | replace('boat', 'kite')"))
    assert_ids_are_hugging_faces(encoder, encode(encoder, SEVERAL), SEVERAL)
    assert "changes message 1 (assistant)" in refusal(encoder, caption("A boat."))


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_text_written_twice_is_refused(load: Load, role: str) -> None:
    encoder = load(chatml_case(f"part['text'] ~ (' ' ~ part['text'] if m['role'] == '{role}' else '')"))
    assert "repeats or reorders" in refusal(encoder, ONE)


@pytest.mark.parametrize(
    ("template", "dropped"),
    [
        (templates.chatml().replace("in messages", "in messages[-2:]"), "message 0 (user), message 1 (assistant)"),
        (templates.chatml().replace("in messages", "in messages[:2]"), "message 2 (user), message 3 (assistant)"),
        (templates.chatml().replace("in messages", "in messages[:1] + messages[2:]"), "message 1 (assistant)"),
    ],
    ids=["earlier turns", "later turns", "a scored turn"],
)
def test_a_turn_that_is_dropped_is_refused(load: Load, template: str, dropped: str) -> None:
    encoder = load(TemplateCase(template, templates.byte_level))
    assert f"drops {dropped};" in refusal(encoder, SEVERAL)


THOUGHT = "<think>\nIt flies.\n</think>\n\nA kite."


def test_a_thinking_block_that_the_template_takes_out_is_refused(load: Load) -> None:
    encoder = load(CASES["qwen3"])
    earlier = (*caption(THOUGHT), *SEVERAL[2:])
    assert "It flies" not in encoder.render(to_messages(earlier))
    assert "changes message 1 (assistant)" in refusal(encoder, earlier)
    # The last one is kept, but written by the template: no place of the text is known.
    assert "It flies" in encoder.render(to_messages(caption(THOUGHT)))
    assert "depends on what a text says" in refusal(encoder, caption(THOUGHT))


@pytest.mark.parametrize(
    ("name", "turns", "words"),
    [
        ("mistral", WITH_SYSTEM, "Only user and assistant roles"),
        ("gemma", (*ONE, *ONE[1:]), "Roles must alternate"),
    ],
)
def test_a_template_s_own_refusal_is_passed_on(load: Load, name: str, turns: Sequence[Turn], words: str) -> None:
    message = refusal(load(CASES[name]), turns)
    assert words in message
    assert str([turn.role for turn in turns]) in message


# Templates and tokenizers without a model


def tokenizer_of(render: Callable[[list[dict[str, Any]]], str], tokenizer: Any = None) -> ChatTokenizer:
    backend = (tokenizer or tiny.byte_level_tokenizer()).backend_tokenizer
    return ChatTokenizer(backend, ["<image>"], render, slot="<image>", image_token="<image>", bos=None)


def joined(messages: list[dict[str, Any]]) -> str:
    return "\n".join(m["content"][-1]["text"] for m in messages)


def test_a_template_that_writes_the_date_is_not_tied_to_yesterday() -> None:
    dates = iter(["Monday", "Monday", "Tuesday", "Tuesday"])
    chat = tokenizer_of(lambda messages: f"{next(dates)} <image>\n{joined(messages)}")
    first, second = (chat.encode(caption(text), ["<image>"]) for text in ("A kite.", "A boat."))
    decode = tiny.byte_level_tokenizer().backend_tokenizer.decode
    assert decode(list(first.ids)).startswith("Monday")
    assert decode(list(second.ids)).startswith("Tuesday")
    assert decode(list(second.ids[second.scored])) == "A boat."


def test_a_text_of_which_no_token_is_left_is_a_row_error() -> None:
    tokenizer = tiny.byte_level_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")
    chat = tokenizer_of(lambda messages: f"<image>{joined(messages)}", tokenizer)
    for text in ("\u200b", ""):
        with pytest.raises(RowError, match="no token") as caught:
            chat.encode(caption(text), ["<image>"])
        assert caught.value.code is FailureCode.TEXT_MISSING


def test_texts_on_both_sides_of_an_image_keep_their_places_in_their_turn() -> None:
    chat = tokenizer_of(lambda messages: "".join(p.get("text", "<image>") for m in messages for p in m["content"]))
    turns = (Turn("user", ("What?",)), Turn("assistant", ("A ", "kite", IMAGE, " two boats")))
    rendered = chat.encode(turns, ["<image>"])
    assert set(rendered.turns) == {0}
    starts, ends = rendered.starts.tolist(), rendered.ends.tolist()
    assert (starts[0], ends[-1]) == (0, len("A kite two boats"))
    assert starts[1:] == ends[:-1]


def test_a_token_around_a_text_that_is_trimmed_away_is_not_scored() -> None:
    def render(messages: list[dict[str, Any]]) -> str:
        blank, text = (m["content"][0]["text"].strip() for m in messages[1:])
        return f"<image>A ki{blank}te: {text}"  # one token: " kite"

    turns = (Turn("user", (IMAGE,)), Turn("assistant", (" ",)), Turn("assistant", ("A boat.",)))
    assert set(tokenizer_of(render).encode(turns, ["<image>"]).turns) == {1}
