"""A word is labelled visual exactly where the image changes what could stand there.

The proof, in a small world and with a few phrases, knows nothing of how `CaptionWriter` keeps its books.
"""

import random
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest

from scorer.mini.language.caption_writer import FILLER, VISUAL
from scorer.mini.language.captions import write
from scorer.mini.language.phrases import FULL, Phrasebook
from scorer.mini.world import World
from tests.scorer.mini.language.enumeration import check


def few_phrases(seed: int, **fixed: Any) -> Phrasebook:
    """Some alternatives of every field, drawn at random; the choices that make captions long are kept short."""
    rng = random.Random(seed)
    chosen = {f.name: tuple(rng.sample(getattr(FULL, f.name), 1)) for f in fields(FULL) if f.name != "most_sentences"}
    for name in ("openers", "nouns", "chains", "endings", "continuations"):
        chosen[name] = tuple(rng.sample(getattr(FULL, name), 2))
    return replace(FULL, **{**chosen, "extra_sentences": (0, 1), **fixed})


PLACED = World(("circle", "ring"), ("red", "blue"), ("small",), (1,), ("white",), (1, 2))
COUNTED = World(("circle",), ("red", "blue"), ("small",), (1, 2), ("white", "black"), (1, 2))
SIZED = World(("star",), ("red", "blue"), ("small", "large"), (3,), ("white",), (1, 2))
MANY = World(("star",), ("red", "blue", "pink"), ("small",), (2,), ("white",), (1, 2, 3))

# One style each and two together, so that what one style's captions leave open meets the other's.
CASES = {
    "a list or a chain, placed": (PLACED, few_phrases(1, styles=("list", "chain"), places=("", "at the {corner}"))),
    "a list or sentences, counted": (COUNTED, few_phrases(2, styles=("list", "sentences"), nouns=FULL.nouns[4:6])),
    "sentences with relations, sized": (
        SIZED,
        few_phrases(
            3, styles=("sentences",), continuations=FULL.continuations[6:9:2], followups=("{the} {be} {size}.",)
        ),
    ),
    "a chain, backwards, many": (
        MANY,
        few_phrases(
            4, styles=("chain",), orders=FULL.orders[-4:-3], chains=("{before}", "plus"), nouns=FULL.nouns[2:3]
        ),
    ),
    "a list, counted aloud, many": (
        MANY,
        few_phrases(5, styles=("list",), openers=("there {be}", "counting {kinds}:"), nouns=FULL.nouns[2:3]),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_word_is_visual_exactly_where_the_picture_changes_it(case: str) -> None:
    world, book = CASES[case]
    seen = check(world, partial(write, world=world, book=book))
    assert seen[VISUAL] > 50
    assert seen[FILLER] > 50


def test_the_proof_finds_a_leak() -> None:
    """An opener that says "a" of its own accord makes the count's "a" ambiguous, and the proof must notice."""
    leaky = few_phrases(1, styles=("list",), openers=("", "a picture of"), ones=("a",))
    world = replace(PLACED, counts=(1, 2), group_numbers=(1,))
    with pytest.raises(AssertionError):
        check(world, partial(write, world=world, book=leaky))
