"""Runs of tokens and words by byte spans: characters whole, text complete, each token at most once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report.word_gaps import mean_gaps
from scorer.display.token_runs import TokenRun, token_runs
from scorer.display.words import Word, words
from scorer.types import Int32Array


def spans(text: str, *ends: int) -> tuple[str, Int32Array, Int32Array]:
    """Tokens end to end, from byte 0 on."""
    stops = np.array(ends, np.int32)
    return text, np.concatenate([[0], stops[:-1]]).astype(np.int32), stops


def test_tokens_of_whole_characters_are_their_own_runs() -> None:
    assert token_runs(*spans("a red fox", 1, 5, 9)) == [
        TokenRun("a", 0, 1),
        TokenRun(" red", 1, 2),
        TokenRun(" fox", 2, 3),
    ]


def test_the_bytes_of_one_character_are_one_run() -> None:
    assert token_runs(*spans("a 🦊é fox", 1, 3, 4, 6, 7, 8, 12)) == [
        TokenRun("a", 0, 1),
        TokenRun(" 🦊", 1, 4),
        TokenRun("é", 4, 6),
        TokenRun(" fox", 6, 7),
    ]


def test_what_was_not_scored_is_kept_without_tokens() -> None:
    starts, ends = np.array([2, 8], np.int32), np.array([5, 9], np.int32)
    assert token_runs("¡hey, you there", starts, ends) == [
        TokenRun("¡", 0, 0),
        TokenRun("hey", 0, 1),
        TokenRun(", y", 1, 1),
        TokenRun("o", 1, 2),
        TokenRun("u there", 2, 2),
    ]
    assert token_runs("nothing", np.zeros(0, np.int32), np.zeros(0, np.int32)) == [TokenRun("nothing", 0, 0)]


def test_a_text_cut_within_a_character_ends_with_the_whole_character() -> None:
    assert token_runs(*spans("a🦊b", 1, 3)) == [TokenRun("a", 0, 1), TokenRun("🦊", 1, 2), TokenRun("b", 2, 2)]


def test_tokens_without_bytes_go_with_their_neighbour() -> None:
    starts, ends = np.array([0, 0, 2, 2], np.int32), np.array([0, 2, 2, 5], np.int32)
    assert token_runs("hi yo", starts, ends) == [TokenRun("hi", 0, 3), TokenRun(" yo", 3, 4)]


@given(st.text(max_size=30), st.lists(st.integers(0, 200), max_size=12), st.integers(0, 5))
def test_token_runs_give_the_text_back_and_every_token_once(text: str, cuts: list[int], skip: int) -> None:
    data = text.encode("utf-8", "replace")
    text = data.decode()
    edges = np.array(sorted(min(cut, len(data)) for cut in cuts), np.int32)
    starts, ends = edges[:-1][skip:], edges[1:][skip:]
    found = token_runs(text, starts, ends)
    assert "".join(run.text for run in found) == text
    covered = [token for run in found for token in range(run.first, run.last)]
    assert covered == list(range(len(starts)))
    owned = [token for word in words(text, starts, ends) for token in word.tokens]
    assert len(owned) == len(set(owned))


def test_a_word_has_all_its_tokens_and_no_spaces() -> None:
    assert words(*spans("The kite's tail — blue.", 3, 6, 8, 10, 15, 16, 19, 24, 25)) == [
        Word("The", (0,)),
        Word("kite's", (1, 2, 3)),
        Word("tail", (4,)),
        Word("blue", (7,)),
    ]


def test_a_token_of_two_words_goes_to_the_one_with_more_of_it() -> None:
    assert words(*spans("in front", 4, 8)) == [Word("in", (0,)), Word("front", (1,))]


def test_scripts_without_spaces_count_tokens_as_words() -> None:
    assert words(*spans("红色 fox 的猫", 3, 6, 10, 12, 14, 17)) == [
        Word("红", (0,)),
        Word("色", (1,)),
        Word("fox", (2,)),
        Word("的", (3, 4)),
        Word("猫", (5,)),
    ]


def test_mean_gaps_fold_case_and_need_a_count() -> None:
    seen = [("Red", 1.0), ("red", 3.0), ("a", 0.5), ("a", -0.5), ("once", 9.0)]
    assert [(word.text, word.count, word.mean) for word in mean_gaps(seen, 2)] == [("red", 2, 2.0), ("a", 2, 0.0)]
    assert mean_gaps(seen, 1)[0].text == "once"
    assert mean_gaps([], 1) == []


@pytest.mark.parametrize("text", ["", " ", "…"])
def test_no_words(text: str) -> None:
    assert words(*spans(text, len(text.encode()))) == []
