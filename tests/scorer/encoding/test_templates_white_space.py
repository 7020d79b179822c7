"""White space that a chat template trims: the model is shown what Hugging Face renders, and it has no tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorer.errors import FailureCode
from scorer.results import Failure
from scorer.types import IMAGE, EncodedSample, Sample, Turn
from tests.scorer.templates import (
    CASES,
    PICTURE,
    SEVERAL,
    Load,
    assert_ids_are_hugging_faces,
    caption,
    chatml_case,
    encode,
)

PADDED = [
    "  A kite. ",
    "\nA kite.",
    "A kite.\n\n",
    " \n\t A\n kite. \r\n",
    "\n\u3000A très red kite 🪁\u00a0",
    "A kite.",
]
TRIMS: dict[str, Callable[[str], str]] = {
    "part['text'] | trim": str.strip,
    "part['text'].lstrip()": str.lstrip,
    "part['text'].rstrip()": str.rstrip,
    "part['text'].strip('\n')": lambda text: text.strip("\n"),
    "part['text'].lstrip('\n')": lambda text: text.lstrip("\n"),
    "part['text'].lstrip('\n').rstrip()": lambda text: text.lstrip("\n").rstrip(),
    "part['text']": str,
}


def assert_spans_are(row: EncodedSample, turn: int, text: str, shown: str) -> None:
    """Byte-level tokens partition ``shown``, where it stands in ``text``; the stop token lies at the text's end."""
    assert row.is_stop is not None
    mine = (row.token_turns == turn) & ~row.is_stop
    stop = (row.token_turns == turn) & row.is_stop
    size = len(text.encode())
    assert (row.token_starts[stop].tolist(), row.token_ends[stop].tolist()) == ([size], [size])
    starts, ends = row.token_starts[mine], row.token_ends[mine]
    np.testing.assert_array_equal(starts[1:], ends[:-1])
    first = len(text[: text.index(shown)].encode())
    assert (starts[0], ends[-1]) == (first, first + len(shown.encode()))


@pytest.mark.parametrize("expression", TRIMS)
def test_trimmed_white_space_has_no_tokens(load: Load, expression: str) -> None:
    encoder = load(chatml_case(expression))
    for text in PADDED:
        turns = (
            Turn("system", (" \n Be brief. ",)),
            Turn("user", ("\n Look: ", IMAGE, "\n What? \n")),
            Turn("assistant", (text,)),
            Turn("user", (" And? ",)),
            Turn("assistant", ("\n A boat. \n",)),
        )
        row = encode(encoder, turns)
        assert_ids_are_hugging_faces(encoder, row, turns)
        for turn, given_text in enumerate((text, "\n A boat. \n")):
            assert_spans_are(row, turn, given_text, TRIMS[expression](given_text))


@pytest.mark.parametrize("name", ["llama3", "gemma", "qwen3", "vicuna", "mistral"])
def test_padded_captions_in_the_shapes_of_families(load: Load, name: str) -> None:
    encoder = load(CASES[name])
    for text in PADDED:
        row = encode(encoder, caption(text))
        assert_ids_are_hugging_faces(encoder, row, caption(text))
        shown = {"llama3": text.strip(), "gemma": text.strip(), "qwen3": text.lstrip("\n")}.get(name, text)
        first = len(text[: text.index(shown)].encode())
        assert (row.token_starts[0], row.token_ends[-2]) == (first, first + len(shown.encode()))
        assert row.token_starts[-1] == row.token_ends[-1] == len(text.encode())


@given(
    st.text(st.sampled_from(" \n\t\u3000aé🪁."), min_size=1, max_size=12).filter(str.strip), st.sampled_from([*TRIMS])
)
@settings(max_examples=60, deadline=None)
def test_any_white_space(load: Load, text: str, expression: str) -> None:
    encoder = load(chatml_case(expression))
    row = encode(encoder, caption(text))
    assert_ids_are_hugging_faces(encoder, row, caption(text))
    assert_spans_are(row, 0, text, TRIMS[expression](text))


@pytest.mark.parametrize("blank", ["", " \n"])
def test_a_turn_that_is_nothing_but_trimmed_white_space_has_no_tokens(load: Load, blank: str) -> None:
    encoder = load(CASES["llama3"])
    failure = encoder.try_encode(Sample("row", (PICTURE,), caption(blank)))
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.TEXT_MISSING
    turns = (*caption(blank), *SEVERAL[2:])
    row = encode(encoder, turns)
    assert_ids_are_hugging_faces(encoder, row, turns)
    assert set(row.token_turns) == {1}
    assert_spans_are(row, 1, "A kite.", "A kite.")


def test_an_empty_prompt_is_written_as_the_template_writes_an_empty_one(load: Load) -> None:
    encoder = load(chatml_case("part['text'] + '!' if part['text'] else 'nothing asked'"))
    turns = (Turn("user", (IMAGE, "")), Turn("assistant", ("A kite.",)))
    assert_ids_are_hugging_faces(encoder, encode(encoder, turns), turns)
