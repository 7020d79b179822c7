"""Dataset message formats become turns with images where the dataset says."""

from __future__ import annotations

import pytest

from scorer.errors import FailureCode, RowError
from scorer.messages import parse_conversation
from scorer.types import IMAGE, Turn


def test_llava_conversation_places_the_image_at_its_marker() -> None:
    sample = parse_conversation(
        "a", [b"x"], [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A kite."}]
    )
    assert sample.turns == (Turn("user", (IMAGE, "What is it?")), Turn("assistant", ("A kite.",)))
    assert sample.scored_texts == ("A kite.",)


def test_marker_behind_the_question_and_between_texts() -> None:
    sample = parse_conversation(
        "a",
        [b"x", b"y"],
        [{"role": "user", "content": "First <image>\nthen\n<image> and what?"}, {"role": "assistant", "content": "ok"}],
    )
    assert sample.turns[0].content == ("First ", IMAGE, "then", IMAGE, " and what?")


def test_images_without_marker_precede_the_first_user_turn() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "A kite."},
    ]
    sample = parse_conversation("a", [b"x"], messages)
    assert sample.turns[0].content == ("Be brief.",)
    assert sample.turns[1].content == (IMAGE, "What is it?")


def test_typed_parts_keep_their_order_and_a_spelled_marker_stays_text() -> None:
    content = [{"type": "text", "text": "See "}, {"type": "image"}, {"type": "text", "text": " not <image>"}]
    sample = parse_conversation(
        "a", [b"x"], [{"role": "user", "content": content}, {"role": "assistant", "content": "An <image> of it."}]
    )
    assert sample.turns[0].content == ("See ", IMAGE, " not <image>")
    assert sample.scored_texts == ("An <image> of it.",)


@pytest.mark.parametrize(
    ("messages", "images", "code", "words"),
    [
        ([], 1, FailureCode.CONVERSATION_INVALID, "at least one message"),
        ("hello", 1, FailureCode.CONVERSATION_INVALID, "'hello'"),
        ([{"role": "user", "content": "x"}], 1, FailureCode.CONVERSATION_INVALID, "assistant"),
        ([{"role": "wizard", "content": "x"}], 1, FailureCode.CONVERSATION_INVALID, "'wizard'"),
        ([{"role": "assistant", "content": None}], 1, FailureCode.TEXT_INVALID, "None"),
        ([{"role": "assistant", "tool_calls": [{"id": "a"}]}], 1, FailureCode.CONVERSATION_INVALID, "0 calls a tool"),
        ([{"role": "assistant", "content": [{"type": "text"}]}], 1, FailureCode.TEXT_INVALID, "type text"),
        ([{"role": "assistant", "content": [{"type": "image"}]}], 1, FailureCode.CONVERSATION_INVALID, "user turns"),
        ([{"role": "assistant", "content": "x"}], 1, FailureCode.CONVERSATION_INVALID, "has 1 image but no user turn"),
        (
            [{"from": "human", "value": "<image><image>"}, {"from": "gpt", "value": "x"}],
            1,
            FailureCode.CONVERSATION_INVALID,
            "2 images, but the row has 1",
        ),
    ],
)
def test_invalid_conversations_are_row_errors(messages: object, images: int, code: FailureCode, words: str) -> None:
    with pytest.raises(RowError, match=words) as caught:
        parse_conversation("a", [b"x"] * images, messages)  # type: ignore[arg-type]
    assert caught.value.code is code
