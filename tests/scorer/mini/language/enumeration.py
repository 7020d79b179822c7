"""Write every caption of every scene, and compare each word's label with the information that it carries.

P(word | text before, scene) is a quotient of sums over all captions. A word carries information if and only if that
quotient differs between two scenes in which the text before it is possible.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations, product
from typing import Any

import pytest

from scorer.mini.language.caption_writer import FILLER, VISUAL
from scorer.mini.language.captions import Caption
from scorer.mini.world import Group, Item, Scene, World

SOMEWHERE = Item(0.5, 0.5, 0.1, 0.0)

Writing = Callable[[Scene, random.Random], Caption]


class Script(random.Random):
    """Makes the choices it is told to, then the first of each, and remembers how many there were to make."""

    def __init__(self, choices: Sequence[int]) -> None:
        super().__init__(0)
        self.choices, self.sizes = list(choices), list[int]()
        self.probability = 1.0

    def choice(self, seq: Any) -> Any:
        different = list({repr(value): value for value in seq}.values())
        if len(self.sizes) == len(self.choices):
            self.choices.append(0)
        taken = different[self.choices[len(self.sizes)]]
        self.sizes.append(len(different))
        self.probability *= list(seq).count(taken) / len(seq)
        return taken


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
