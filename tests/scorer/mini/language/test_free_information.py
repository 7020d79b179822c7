"""In free language, too, a word is labelled visual exactly where the image changes what could stand there.

Left out are the frames whose own words a slot could say at the same place (`frames.MEETINGS`, `COLLECTIVES`): their
labels follow the frame.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from scorer.mini.language import lexicon
from scorer.mini.language.caption_writer import FILLER, VISUAL
from scorer.mini.language.captions import Caption
from scorer.mini.language.filler import Filler
from scorer.mini.language.french import FrenchSpeaker
from scorer.mini.language.speaker import ENGLISH, Language, Speaker
from scorer.mini.world import Layout, Scene, World
from tests.scorer.mini.language.enumeration import Writing, check


@dataclass(frozen=True, slots=True)
class FewPlaces(World):
    places: tuple[Layout, ...] = ((0,), (1,), (2,), (0, 1), (0, 2))

    def layouts(self) -> tuple[Layout, ...]:
        return self.places


class Plain(Filler):
    """Says as little as possible."""

    def one(self, name: str) -> str:
        return {"sits": "sits/sit"}.get(name, "so")


def few(**chosen: Any) -> Language:
    """A language of one choice each, but for those given."""
    single: dict[str, Any] = {
        "introductions": ("{np}",),
        "placed": (),
        "related": (),
        "links": ("and {np}",),
        "turns": (),
        "statements": ("{the} {be} so",),
        "background_statements": (),
        "endings": ("",),
        "stops": (".",),
        "nouns": ("{count} {colour} {shape}",),
        "bare_nouns": (),
        "places": ("",),
        "things": ("thing",),
        "nothings": ("nothing else",),
        "alone": ("alone",),
        "beings": (("is", "are"),),
        "hyphens": (" ",),
        "further_counts": (),
        "orders": (),
        "mentions": (1, 2),
    }
    for name in (
        "shapes",
        "colours",
        "backgrounds",
        "sizes",
        "counts",
        "exact_counts",
        "relations",
        "comparisons",
        "heights",
    ):
        single[name] = getattr(ENGLISH, name)[:1]
    return Language(**{**single, **chosen})


def two_groups(speaker: Speaker) -> None:
    """Mention a group, perhaps a second one, and perhaps say more."""
    speaker.introduce(speaker.words.introductions)
    if speaker.chance(0.5):
        speaker.introduce(speaker.words.links)
    if speaker.chance(0.5):
        speaker.state(speaker.words.statements)


def writing(
    world: World, words: Language, style: Callable[[Speaker], None] = two_groups, speaking: type[Speaker] = Speaker
) -> Writing:
    def write(scene: Scene, rng: random.Random) -> Caption:
        speaker = speaking(scene, rng, world=world, words=words)
        speaker.filler = Plain(rng)
        style(speaker)
        return Caption(speaker.caption.text, tuple(speaker.caption.spans))

    return write


ONE_OR_TWO = (1, 2)
PLACED = FewPlaces(("circle", "ring"), ("red", "blue"), ("small",), (1,), ("white",), ONE_OR_TWO)
COUNTED = FewPlaces(("circle",), ("red", "blue"), ("small",), (1, 2), ("white",), ONE_OR_TWO, ((0,), (1,), (0, 1)))
SIZED = FewPlaces(("star",), ("red", "blue"), ("small", "large"), (1,), ("white",), ONE_OR_TWO, ((0,), (1,), (0, 1)))

CASES = {
    "places in any order of mention": (
        PLACED,
        few(places=("", "at the {corner}"), statements=("{the} {sits} {after} {other}", "{the} {be} on the {side}")),
    ),
    "a relation announces a group": (
        PLACED,
        few(links=("{before} {np}", "and {np}"), statements=("{the} {be} at the {height}",)),
    ),
    "counts, with verbs that agree": (
        COUNTED,
        few(
            introductions=("there {be} {np}", "so {np}"),
            nouns=("{count} {colour} {shape}", "{count} so {shape} that {be} {colour}"),
            statements=("{number}", "{the} {be} so"),
        ),
    ),
    "nouns without a count": (
        COUNTED,
        few(
            bare_nouns=("{colour} {shape}",),
            introductions=("{bare}", "{np}"),
            links=(", {bare}", "and {np}"),
            statements=("{number}",),
        ),
    ),
    "vague counts": (
        COUNTED,
        few(counts=({1: "a", 2: "some"}, {1: "one", 2: "2"}), statements=("there {be} {number} of {them}",)),
    ),
    "attributes that follow later": (
        # With two colours, two groups would have both, and "the thing is red" would be as likely of any scene.
        replace(SIZED, colours=("red", "blue", "pink")),
        few(
            nouns=("{count} {size} {thing}", "{count} {shape}"),
            statements=("{the} {be} {colour}", "{it} {be} {size}"),
        ),
    ),
    "comparisons": (
        SIZED,
        few(nouns=("{count} {size} {colour} {shape}",), statements=("{the} {be} {compared} {other}",)),
    ),
    "several words for a thing": (
        PLACED,
        few(
            shapes=lexicon.SHAPES[-6:-3],
            colours=lexicon.COLOURS[-1:],
            statements=("{it} {be} {kind}",),
            nouns=("{count} {colour} {thing}",),
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_word_is_visual_exactly_where_the_image_changes_it(case: str) -> None:
    world, words = CASES[case]
    seen = check(world, writing(world, words))
    assert seen[VISUAL] > 20
    assert seen[FILLER] > 20


def french(speaker: Speaker) -> None:
    speaker.introduce(("il y a {np}",))
    if speaker.chance(0.5):
        speaker.introduce(("et {np}",))
    if speaker.chance(0.5):
        speaker.subject = 0
        speaker.fill("{the} {be} {colour}")


def test_french_words_that_agree_tell_of_what_follows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """After "une", only a star may come: "petite" adds nothing to it, nor does the "e" of "verte"."""
    monkeypatch.setattr("scorer.mini.language.french.NOUNS", ("{count} {small} {shape} {colour}",))
    monkeypatch.setattr("scorer.mini.language.french.NOTHINGS", ("rien d’autre",))
    world = FewPlaces(("circle", "star"), ("red", "green"), ("small",), (1, 2), ("white",), (1, 2), ((0,), (0, 1)))
    seen = check(world, writing(world, few(), french, FrenchSpeaker))
    assert seen[VISUAL] > 20
    assert seen[FILLER] > 20


def test_the_proof_finds_a_word_that_could_be_a_count() -> None:
    """The opener "a look at" says "a" of its own accord."""
    words = few(introductions=("a look at {np}", "{np}"))
    with pytest.raises(AssertionError):
        check(COUNTED, writing(COUNTED, words))
