"""Which word takes another's place."""

from __future__ import annotations

import time

import numpy as np
import pytest

from scorer.assessment.word_swaps import ScoredText, Swap, find_swaps
from scorer.display.words import word_spans


def texts(*captions: str, rows: list[int] | None = None) -> list[ScoredText]:
    """One turn each; in scripts without spaces, a character is a token."""
    found = []
    for i, text in enumerate(captions):
        ends = np.cumsum([len(character.encode()) for character in text], dtype=np.int32)
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int32)
        found.append(ScoredText(i if rows is None else rows[i], 0, text, tuple(word_spans(text, starts, ends))))
    return found


def swapped(*captions: str, seed: int = 0) -> list[str]:
    return [swap.text for swap in find_swaps(texts(*captions), seed)]


COLOURS = ("a red kite flies", "a blue kite flies") * 2


def test_a_word_is_replaced_by_one_between_the_same_neighbours() -> None:
    assert swapped(*COLOURS) == ["a blue kite flies", "a red kite flies"] * 2


def test_a_replacement_keeps_the_words_capitals() -> None:
    assert swapped("Red kites", "blue kites", "Red kites", "blue kites")[:2] == ["Blue kites", "red kites"]
    assert swapped("RED kites", "RED kites", "blue kites", "blue kites")[0] == "BLUE kites"


def test_scripts_without_spaces_are_swapped_token_by_token() -> None:
    assert swapped("有红的球", "有红的球", "有蓝的球", "有蓝的球")[0] == "有蓝的球"


def test_bytes_before_the_word_do_not_move_it() -> None:
    assert swapped("très 🪁 rouge", "très 🪁 rouge", "très 🪁 vert", "très 🪁 vert")[0] == "très 🪁 vert"


def test_punctuation_is_part_of_a_place() -> None:
    captions = ("red, kite", "green, kite", "blue kite") * 2
    assert set(swapped(*captions)[:2]) == {"green, kite", "red, kite"}


@pytest.mark.parametrize(
    "captions",
    [
        ("a red kite", "a blue kite"),  # each word once: names and typing errors
        ("a red kite", "a red kite"),  # no other word
        (),
    ],
)
def test_there_may_be_no_swap(captions: tuple[str, ...]) -> None:
    assert swapped(*captions) == []


def test_words_of_one_row_do_not_replace_each_other() -> None:
    row = texts("a red kite", "a blue kite", "a red boat", "a blue boat", rows=[0, 0, 1, 1])
    assert find_swaps(row[:2], 0) == []
    assert len(find_swaps(row, 0)) == 2


def test_frequencies_are_matched() -> None:
    rare, common = ["a red kite", "one red boat"], ["a blue kite", *["two blue hats"] * 20]
    assert all("blue" not in text for text in swapped(*rare, *common)[:2])
    # The control: as rare a word does take its place.
    assert "a green kite" in swapped(*rare, "a green kite", "one green boat", *common)


def test_a_rare_word_is_preferred_to_a_common_one() -> None:
    varied = [f"{article} {colour} kite" for article in ("a", "the") for colour in ("red", "blue") for _ in range(9)]
    rare = ["a teal kite", "the teal kite", "a puce kite", "the puce kite"]
    swaps = [swap for seed in range(50) for swap in find_swaps(texts(*varied, *rare), seed) if swap.source.row >= 36]
    content = [swap.word.text in ("teal", "puce") for swap in swaps]
    assert np.mean(content) > 0.7  # half, if words were chosen alike


def test_a_narrow_place_comes_before_a_wide_one() -> None:
    # "red" has a twin between the same neighbours; "flies" only after the same word.
    captions = ("a red kite flies high", "a blue kite", "my kite sinks deep") * 2
    for seed in range(20):
        assert find_swaps(texts(*captions), seed)[0].word.text == "red"


def test_swaps_are_seeded() -> None:
    found = texts(*COLOURS, *("one big red kite", "one small blue kite") * 3)
    assert find_swaps(found, 3) == find_swaps(found, 3)
    assert len({tuple(find_swaps(found, seed)) for seed in range(10)}) > 1


def test_a_swap_says_which_word_it_replaces() -> None:
    swap = find_swaps(texts(*COLOURS), 0)[0]
    assert isinstance(swap, Swap)
    assert (swap.word.text, swap.other) == ("red", "blue")


def test_many_words_in_one_place_take_no_longer_than_that() -> None:
    """Each text has every word after the same one: comparing all with all would take minutes."""
    text = " ".join(f"the w{i}" for i in range(4000))
    started = time.monotonic()
    assert len(find_swaps(texts(*[text] * 4), 0)) == 4
    assert time.monotonic() - started < 20
