"""Conversations become the tokens the reference model was trained on, and scored text is known by construction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scorer.encoding.encoder import Encoder
from scorer.encoding.rendering import ChatTokenizer, RenderedTokens
from scorer.errors import FailureCode, ModelError, RowError
from scorer.types import IMAGE, Turn
from tests.scorer import tiny

MODELS = ["chatml_model", "vicuna_model"]
SPECIALS = ["<image>", "<|im_end|>", "<|im_start|>", "<s>", "</s>", "<unk>", "<pad>", "<0x41>"]


@pytest.fixture(scope="module", params=MODELS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    path: Path = request.getfixturevalue(request.param)
    return Encoder.load(path)


def caption_turns(text: str, prompt: str = "Describe the image.") -> list[Turn]:
    return [Turn("user", (IMAGE, prompt)), Turn("assistant", (text,))]


def slots(turns: list[Turn]) -> list[str]:
    """Each image as one placeholder token."""
    return ["<image>"] * sum(turn.content.count(IMAGE) for turn in turns)


def encode(encoder: Encoder, text: str, prompt: str = "Describe the image.") -> RenderedTokens:
    return encoder._chat.encode(caption_turns(text, prompt), ["<image>"])


def hugging_face_ids(encoder: Encoder, turns: list[Turn]) -> list[int]:
    """What ``apply_chat_template(tokenize=True)`` gives, BOS as processors add it, images one token each."""
    messages = [
        {
            "role": turn.role,
            "content": [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in turn.content],
        }
        for turn in turns
    ]
    processor = encoder._processor
    prompt = processor.apply_chat_template(messages, tokenize=False)
    bos = processor.tokenizer.bos_token
    return list(processor.tokenizer(prompt, add_special_tokens=not (bos and prompt.startswith(bos)))["input_ids"])


@pytest.mark.parametrize(
    "text",
    ["A red kite.", "a", "A kite over two boats, très naïve 日本語 🪁!", "line one\n\nline two", "tab\tand  spaces"],
)
def test_plain_text_gives_the_tokens_of_hugging_faces_own_chat_template(encoder: Encoder, text: str) -> None:
    turns = caption_turns(text)
    assert encoder._chat.encode(turns, slots(turns)).ids.tolist() == hugging_face_ids(encoder, turns)


def test_several_turns_give_the_tokens_of_hugging_faces_own_chat_template(encoder: Encoder) -> None:
    turns = [
        Turn("system", ("Be brief.",)),
        Turn("user", ("First ", IMAGE, "then", IMAGE, "?")),
        Turn("assistant", ("A red kite.",)),
        Turn("user", ("And?",)),
        Turn("assistant", ("Two boats.",)),
    ]
    rendered = encoder._chat.encode(turns, slots(turns))
    assert rendered.ids.tolist() == hugging_face_ids(encoder, turns)
    for turn, text in enumerate(("A red kite.", "Two boats.")):
        mine = rendered.turns == turn
        assert rendered.starts[mine][0] == 0
        assert rendered.ends[mine][-1] == len(text)


def test_special_strings_in_captions_and_prompts_are_text(encoder: Encoder) -> None:
    tokenizer = encoder._processor.tokenizer
    spelled = " ".join(SPECIALS)
    rendered = encode(encoder, f"A {spelled} kite", f"What is {spelled}?")
    plain = encode(encoder, "A kite", "What?")
    control = set(tokenizer.all_special_ids) | {encoder.image_token_id}

    def control_tokens(ids: Any) -> list[int]:
        return [i for i in ids.tolist() if i in control]

    assert control_tokens(rendered.ids) == control_tokens(plain.ids)
    # negative control: the tokenizer itself takes them for control tokens
    naive = tokenizer(f"A {spelled} kite", add_special_tokens=False)["input_ids"]
    assert any(i in control for i in naive)


@given(text=st.text(min_size=1, max_size=40) | st.sampled_from(SPECIALS).map(lambda s: f"é{s}🪁{s}"))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_spans_cover_the_scored_text_exactly(encoder: Encoder, text: str) -> None:
    rendered = encode(encoder, text)
    data = text.encode()
    assert rendered.starts[0] == 0
    assert rendered.ends[-1] == len(data)
    # lossless tokenizers: the spans are a partition of the text's bytes
    np.testing.assert_array_equal(rendered.starts[1:], rendered.ends[:-1])


def test_token_that_also_covers_template_text_keeps_the_texts_bytes(vicuna_model: Path) -> None:
    encoder = Encoder.load(vicuna_model)
    rendered = encode(encoder, "A red kite.")
    tokens = encoder._processor.tokenizer.convert_ids_to_tokens(rendered.ids[rendered.scored].tolist())
    assert tokens[0] == "▁A"
    assert (rendered.starts[0], rendered.ends[0]) == (0, 1)


def test_text_that_forges_the_markers_stays_text(encoder: Encoder) -> None:
    """The nonce is what keeps data from spelling a control token: with it known, the forgery works."""
    chat = encoder._chat
    forged_without_nonce = "\U000f00000:0\U000f0001 \U000f00020\U000f0003"
    rendered = encode(encoder, forged_without_nonce)
    assert np.count_nonzero(rendered.ids == encoder.image_token_id) == 1
    with pytest.raises(AssertionError, match="2 runs of image tokens"):
        encode(encoder, chat._names["<image>"])


def test_lone_surrogates_are_a_row_error(encoder: Encoder) -> None:
    with pytest.raises(RowError, match="UTF-8") as caught:
        encode(encoder, "bad \ud800 text")
    assert caught.value.code is FailureCode.TEXT_INVALID


def _refuse(messages: list[dict[str, Any]]) -> str:
    raise ValueError("roles must alternate")


def _drop_users(messages: list[dict[str, Any]]) -> str:
    return "".join(m["content"][-1]["text"] for m in messages if m["role"] != "user")


@pytest.mark.parametrize(
    ("render", "words"), [(_refuse, "roles must alternate"), (_drop_users, r"drops message 0 \(user\)")]
)
def test_template_that_refuses_or_drops_is_a_row_error(render: Any, words: str) -> None:
    tokenizer = tiny.byte_level_tokenizer()
    chat = ChatTokenizer(
        tokenizer.backend_tokenizer, ["<image>"], render, slot="<image>", image_token="<image>", bos=None
    )
    with pytest.raises(RowError, match=words) as caught:
        chat.encode(caption_turns("A kite"), ["<image>"])
    assert caught.value.code is FailureCode.TEMPLATE_FAILED


def test_tokenizer_whose_ids_would_move_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny.byte_level_tokenizer().backend_tokenizer
    # A name that normalises onto an existing token would take that token's id.
    monkeypatch.setattr("scorer.encoding.control_tokens.json.loads", _drop_first_added_token(__import__("json").loads))
    with pytest.raises(ModelError, match="moved the ids"):
        ChatTokenizer(
            tokenizer, ["<pad>", "<image>"], lambda messages: "", slot="<image>", image_token="<image>", bos=None
        )


def _drop_first_added_token(loads: Any) -> Any:
    def load(text: str) -> Any:
        state = loads(text)
        state["added_tokens"] = state["added_tokens"][1:]
        return state

    return load
