"""A word is labelled visual exactly where the picture changes what could stand there.

The proof knows nothing of how `telling` keeps its books. In a small world, with a few phrases, every caption of every
scene is written, with its probability. Then P(word | text before, scene) is a quotient of sums, and a word carries
information if and only if that quotient differs between two scenes in which the text before it is possible.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from itertools import permutations, product
from typing import Any

import pytest

from scorer.mini.caption_writer import FILLER, VISUAL
from scorer.mini.captions import Caption, write
from scorer.mini.phrases import FULL, Phrasebook
from scorer.mini.world import Group, Item, Scene, World

SOMEWHERE = Item(0.5, 0.5, 0.1, 0.0)


class Script(random.Random):
    """Makes the choices it is told to, then the first of each, and remembers how many there were to make."""

    def __init__(self, choices: Sequence[int]) -> None:
        super().__init__(0)
        self.choices, self.sizes = list(choices), list[int]()
        self.probability = 1.0

    def choice(self, seq: Any) -> Any:
        different = [value for k, value in enumerate(seq) if value not in seq[:k]]
        if len(self.sizes) == len(self.choices):
            self.choices.append(0)
        taken = different[self.choices[len(self.sizes)]]
        self.sizes.append(len(different))
        self.probability *= list(seq).count(taken) / len(seq)
        return taken


Writing = Callable[[Scene, random.Random], Caption]


def every_caption(scene: Scene, writing: Writing) -> Iterator[tuple[float, Caption]]:
    """All captions of `scene` with their probabilities: an odometer over the choices made."""
    choices: list[int] = []
    while True:
        script = Script(choices)
        caption = writing(scene, script)
        yield script.probability, caption
        choices = script.choices[: len(script.sizes)]
        while choices and choices[-1] + 1 == script.sizes[len(choices) - 1]:
            choices.pop()
        if not choices:
            return
        choices[-1] += 1


def every_scene(world: World) -> Iterator[Scene]:
    for cells in world.layouts():
        kinds = list(product(world.shapes, world.sizes, world.counts))
        for colours in permutations(world.colours, len(cells)):
            for chosen in product(kinds, repeat=len(cells)):
                groups = tuple(
                    Group(shape, colour, size, cell, (SOMEWHERE,) * count)
                    for cell, colour, (shape, size, count) in zip(cells, colours, chosen, strict=True)
                )
                for background in world.backgrounds:
                    yield Scene(groups, background)


def few_phrases(seed: int, **fixed: Any) -> Phrasebook:
    """Some alternatives of every field, drawn at random; the choices that make captions long are kept short."""
    rng = random.Random(seed)
    chosen = {f.name: tuple(rng.sample(getattr(FULL, f.name), 1)) for f in fields(FULL) if f.name != "most_sentences"}
    for name in ("openers", "nouns", "chains", "endings", "continuations"):
        chosen[name] = tuple(rng.sample(getattr(FULL, name), 2))
    return replace(FULL, **{**chosen, "extra_sentences": (0, 1), **fixed})


def check(world: World, writing: Writing) -> dict[str, int]:
    """Compare every label with the information the word carries; returns how many of each were seen."""
    before: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    spoken: dict[tuple[str, str], dict[int, float]] = defaultdict(lambda: defaultdict(float))
    labels: dict[tuple[str, str], set[str]] = defaultdict(set)
    for number, scene in enumerate(every_scene(world)):
        possible: dict[str, float] = defaultdict(float)
        for probability, caption in every_caption(scene, writing):
            data = caption.text.encode()
            possible[caption.text + "$"] += probability
            for span in caption.spans:
                text, word = data[: span.start].decode(), data[span.start : span.end].decode()
                before[text.rstrip()][number] += probability
                spoken[text.rstrip(), word][number] += probability
                labels[text.rstrip(), word].add(span.label)
            before[caption.text][number] += probability  # the end of the text is a way to go on, too
        assert sum(possible.values()) == pytest.approx(1)
    seen: dict[str, int] = defaultdict(int)
    for (text, word), by_scene in spoken.items():
        chances = [by_scene[scene] / total for scene, total in before[text].items()]
        informative = max(chances) - min(chances) > 1e-9
        assert labels[text, word] == {VISUAL if informative else FILLER}, (text, word, chances)
        seen[VISUAL if informative else FILLER] += 1
    return seen


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
