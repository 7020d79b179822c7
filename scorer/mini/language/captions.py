"""Write captions of scenes in which every word is labelled: visual, filler or contradictory.

The grammar is data (`phrases`); this module fills its slots. All free choices go through `rng.choice` and never depend
on a fact that the text has not stated yet, so `CaptionWriter` can label every word.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scorer.mini.language.caption_writer import CONTRADICTORY, CaptionWriter, Fact, Facts, Span
from scorer.mini.language.phrases import FULL, Phrasebook
from scorer.mini.world import GRID, Layout, Scene, World, in_order

LAYOUT: Fact = ("layout", 0)
BACKGROUND: Fact = ("background", 0)
FALSIFIABLE = ("colour", "shape", "size", "count", "layout", "background")

NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}


@dataclass(frozen=True, slots=True)
class Caption:
    """A text, the byte spans and labels of its words, and the kind of fact that was falsified, if any."""

    text: str
    spans: tuple[Span, ...]
    planted: str | None = None


def facts_of(scene: Scene, order: tuple[int, ...]) -> dict[Fact, Any]:
    """Return everything a caption can say about `scene`, with groups numbered in the order of mention."""
    facts: dict[Fact, Any] = {LAYOUT: scene.layout, BACKGROUND: scene.background}
    for i, group in enumerate(in_order(scene, order)):
        facts["colour", i], facts["shape", i] = group.colour, group.shape
        facts["size", i], facts["count", i] = group.size, group.count
    return facts


def possibilities(world: World) -> dict[Fact, tuple[Any, ...]]:
    """Return the values that each fact may have before anything is said."""
    values: dict[Fact, tuple[Any, ...]] = {LAYOUT: world.layouts(), BACKGROUND: world.backgrounds}
    for i in range(max(world.group_numbers)):
        values["colour", i], values["shape", i] = world.colours, world.shapes
        values["size", i], values["count", i] = world.sizes, world.counts
    return values


def relation(here: int, there: int) -> str:
    """Return where the cell `here` lies as seen from the cell `there`."""
    (row, column), (other_row, other_column) = divmod(here, GRID), divmod(there, GRID)
    if row == other_row:
        return "right" if column > other_column else "left"
    if column == other_column:
        return "below" if row > other_row else "above"
    return "diagonal"


class _Writer:
    """Fill the slots of phrases; `i` is the number of the current group, in the order of mention."""

    def __init__(
        self, caption: CaptionWriter, book: Phrasebook, order: tuple[int, ...], rng: random.Random, most_groups: int
    ) -> None:
        self.caption, self.book, self.order, self.rng = caption, book, order, rng
        self.most_groups = most_groups
        self.i = 0
        self.said: set[str] = set()
        self.one = rng.choice(book.ones)
        self.place = rng.choice(book.places)
        self.size_words: Mapping[str, str] = rng.choice(book.sizes)
        self.relations: Mapping[str, str] = rng.choice(book.relations)
        self.heights = rng.choice(book.heights)

    def fill(self, template: str) -> None:
        """Say `template` with its slots filled; punctuation stays with the slot or word before it."""
        for part in re.split(r"(\{\w+\})", template):
            if part.startswith("{"):
                getattr(self, f"_{part[1:-1]}")()
            else:
                self.caption.say(part)

    def more(self) -> bool:
        """Return whether the image has a group after the current one."""
        return self.caption.ask(LAYOUT, lambda cells: len(cells) > self.i + 1)

    def _cell(self, layout: Layout, i: int) -> int:
        return sorted(layout, key=self.order.index)[i]

    def _np(self) -> None:
        self.fill(self.rng.choice(self.book.nouns))
        self.fill(self.place)

    def _count(self) -> None:
        self.caption.tell(("count", self.i), lambda n: NUMBER_WORDS.get(n, self.one))

    def _size(self) -> None:
        self.caption.tell(("size", self.i), lambda size: self.size_words[size])

    def _colour(self, i: int | None = None) -> None:
        i = self.i if i is None else i
        self.caption.tell(("colour", i), str)
        for other in range(self.most_groups):
            if other != i:
                self.caption.rule_out(("colour", other), self.caption.value(("colour", i)))

    def _shape(self, i: int | None = None) -> None:
        i = self.i if i is None else i
        plural = self.caption.value(("count", i)) > 1
        self.caption.tell(("shape", i), lambda shape: shape + ("es" if shape == "cross" else "s") * plural)

    def _be(self) -> None:
        self.caption.tell(("count", self.i), lambda n: "is" if n == 1 else "are")

    def _background(self) -> None:
        self.caption.tell(BACKGROUND, str)

    def _kinds(self) -> None:
        self.caption.tell(LAYOUT, lambda cells: NUMBER_WORDS.get(len(cells), "one"))

    def _corner(self) -> None:
        def wording(layout: Layout) -> str:
            row, column = divmod(self._cell(layout, self.i), GRID)
            return f"{self.heights[row]} {('left', 'right')[column]}"

        self.caption.tell(LAYOUT, wording)

    def _after(self) -> None:
        self._relation(self.i, self.i - 1)

    def _before(self) -> None:
        self._relation(self.i - 1, self.i)

    def _relation(self, here: int, there: int) -> None:
        def wording(layout: Layout) -> str:
            return self.relations[relation(self._cell(layout, here), self._cell(layout, there))]

        self.caption.tell(LAYOUT, wording)

    def _the(self) -> None:
        self._mention(self.i)

    def _the_previous(self) -> None:
        self._mention(self.i - 1)

    def _mention(self, i: int) -> None:
        self.caption.say("the")
        self._colour(i)
        self._shape(i)

    def _them(self) -> None:
        self.caption.tell(("count", self.i - 1), lambda n: "it" if n == 1 else "them")

    def _closer(self) -> None:
        fresh = [closer for closer in self.book.closers if closer not in self.said]
        closer = self.rng.choice(fresh or self.book.closers)
        self.said.add(closer)
        self.fill(closer)


def _list(writer: _Writer) -> None:
    """Write one sentence: "A, B and C." """
    book, rng = writer.book, writer.rng
    final = rng.choice(book.finals)
    writer.fill(rng.choice(book.openers))
    writer.fill("{np}")
    while writer.more():
        # "And" announces the last group, a comma any other.
        writer.i += 1
        writer.caption.say("," if writer.more() else final)
        writer.fill("{np}")
    _end(writer)


def _chain(writer: _Writer) -> None:
    """Write one sentence whose connectives do not reveal how many groups follow: "A above B plus C." """
    writer.fill(writer.rng.choice(writer.book.openers))
    writer.fill("{np}")
    while writer.more():
        writer.i += 1
        writer.fill(writer.rng.choice(writer.book.chains))
        writer.fill("{np}")
    _end(writer)


def _end(writer: _Writer) -> None:
    known = writer.caption.is_known(BACKGROUND)
    writer.fill(writer.rng.choice([end for end in writer.book.endings if not (known and "{background}" in end)]))


def _sentences(writer: _Writer) -> None:
    """Write a sentence for each group."""
    writer.fill(writer.rng.choice(writer.book.firsts) + ".")
    while writer.more():
        writer.i += 1
        writer.fill(writer.rng.choice(writer.book.continuations) + ".")


STYLES = {"list": _list, "chain": _chain, "sentences": _sentences}


def _follow_up(writer: _Writer, groups: int) -> None:
    """Write a further sentence about a group, the background, or nothing in particular; never the same one twice."""
    caption, rng = writer.caption, writer.rng
    template = rng.choice(writer.book.followups)
    first = 1 if "{the_previous}" in template else 0
    mentions = [i for i in range(first, groups) if f"{i}: {template}" not in writer.said]
    if "{size}" in template:
        mentions = [i for i in mentions if not caption.is_known(("size", i))]
    if not mentions or ("{background}" in template and caption.is_known(BACKGROUND)):
        template = "{closer}"
    else:
        writer.i = rng.choice(mentions)
        writer.said.add(f"{writer.i}: {template}")
    writer.fill(template)


def write(
    scene: Scene,
    rng: random.Random,
    *,
    false: Facts | None = None,
    world: World | None = None,
    book: Phrasebook = FULL,
) -> Caption:
    """Write a caption of `scene` that states the facts in `false` as given, whatever the image shows."""
    world = world or World()
    order = rng.choice(book.orders)
    true = facts_of(scene, order.cells)
    told: Facts = {**true, **(false or {})}
    caption = CaptionWriter(told, [true], possibilities(world))
    writer = _Writer(caption, book, order.cells, rng, max(world.group_numbers))
    caption.say(order.announcement)
    STYLES[rng.choice(book.styles)](writer)
    for _ in range(min(rng.choice(book.extra_sentences), book.most_sentences - caption.text.count("."))):
        _follow_up(writer, len(scene.groups))
    return Caption(caption.text, tuple(caption.spans), next((kind for kind, _ in false or {}), None))


def drill(rng: random.Random, world: World | None = None, words: int = 48) -> Caption:
    """Repeat some words in a random order: after the first round, the text itself determines the next word.

    This is not a caption, but the quickest way to learn what captions need: looking up what has been said.
    """
    world = world or World()
    vocabulary = (*world.shapes, *world.colours, *world.backgrounds, *world.sizes, *NUMBER_WORDS.values())
    order = rng.sample(vocabulary, rng.randint(4, 12))
    caption = CaptionWriter({}, [], {})
    for k in range(words):
        caption.say(order[k % len(order)])
    return Caption(caption.text, tuple(caption.spans))


def falsified(scene: Scene, rng: random.Random, world: World) -> tuple[Fact, Any]:
    """Return a fact and a random value for it, which the image may happen to support."""
    kind = rng.choice(FALSIFIABLE)
    if kind == "layout":
        values: list[Any] = [cells for cells in world.layouts() if len(cells) == len(scene.groups)]
        return LAYOUT, rng.choice(values)
    if kind == "background":
        return BACKGROUND, rng.choice(world.backgrounds)
    group = rng.randrange(len(scene.groups))
    if kind == "colour":
        return (kind, group), rng.choice([c for c in world.colours if all(c != g.colour for g in scene.groups)])
    if kind == "shape":
        return (kind, group), rng.choice([s for s in world.shapes if all(s != g.shape for g in scene.groups)])
    return (kind, group), rng.choice(world.sizes if kind == "size" else world.counts)


def write_false(scene: Scene, rng: random.Random, *, attempts: int = 500) -> Caption:
    """Write a caption with exactly one word that the image contradicts.

    Words after the planted one are labelled as usual: what the text has stated, falsely or not, is known from then on.
    Captions in which the error makes a second word false are discarded, and so are those whose planted value is the
    true one: nothing in them is contradicted.

    Raises:
        RuntimeError: no such caption was found in `attempts` tries.
    """
    world = World()
    for _ in range(attempts):
        caption = write(scene, rng, false=dict([falsified(scene, rng, world)]))
        if sum(span.label == CONTRADICTORY for span in caption.spans) == 1:
            return caption
    raise RuntimeError(f"found no caption of {scene} with one false word in {attempts} attempts")
