"""Fill the slots of frames with a scene's facts, in whatever order the groups are mentioned."""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import permutations
from typing import Any, TypeVar

from scorer.mini.language import frames, lexicon
from scorer.mini.language.caption_writer import CaptionWriter, Fact, Facts
from scorer.mini.language.captions import BACKGROUND, LAYOUT, Caption, relation
from scorer.mini.language.filler import TRAINING, Filler, share
from scorer.mini.language.phrases import READING, TO_THE_LEFT, TO_THE_RIGHT, UPWARD, Order
from scorer.mini.language.surface import Surface
from scorer.mini.world import GRID, Group, Layout, Scene, World, in_order

Words = Mapping[Any, str]
T = TypeVar("T")

ORDERS = (
    Order("from left to right :", TO_THE_RIGHT),
    Order("from left to right ,", TO_THE_RIGHT),
    Order("starting on the left ,", TO_THE_RIGHT),
    Order("from right to left ,", TO_THE_LEFT),
    Order("from bottom to top ,", UPWARD),
    Order("row by row ,", READING),
    Order("in reading order :", READING),
)


@dataclass(frozen=True, slots=True)
class Language:
    """Every free choice of the English grammar; each field lists alternatives of equal weight."""

    introductions: tuple[str, ...] = frames.INTRODUCTIONS + frames.MEETINGS
    pairs: tuple[str, ...] = frames.PAIRS
    placed: tuple[str, ...] = frames.PLACED
    related: tuple[str, ...] = frames.RELATED
    links: tuple[str, ...] = frames.LINKS
    turns: tuple[str, ...] = frames.TURNS
    statements: tuple[str, ...] = frames.STATEMENTS
    background_statements: tuple[str, ...] = frames.BACKGROUNDS
    endings: tuple[str, ...] = frames.ENDINGS
    stops: tuple[str, ...] = frames.STOPS
    nouns: tuple[str, ...] = frames.NOUNS
    bare_nouns: tuple[str, ...] = frames.BARE_NOUNS
    places: tuple[str, ...] = frames.PLACES
    things: tuple[str, ...] = frames.THINGS
    nothings: tuple[str, ...] = lexicon.NOTHINGS
    shapes: tuple[Words, ...] = lexicon.SHAPES
    colours: tuple[Words, ...] = lexicon.COLOURS
    backgrounds: tuple[Words, ...] = lexicon.BACKGROUNDS
    sizes: tuple[Words, ...] = lexicon.SIZES
    counts: tuple[Words, ...] = lexicon.COUNTS * 8 + lexicon.COLLECTIVES
    further_counts: tuple[Words, ...] = (lexicon.FURTHER_COUNTS,)
    exact_counts: tuple[Words, ...] = lexicon.EXACT_COUNTS
    relations: tuple[Words, ...] = lexicon.RELATIONS
    comparisons: tuple[Words, ...] = lexicon.COMPARISONS
    heights: tuple[tuple[str, str], ...] = lexicon.HEIGHTS
    hyphens: tuple[str, ...] = (" ",) * 9 + ("-",)
    alone: tuple[str, ...] = lexicon.ALONE
    beings: tuple[tuple[str, str], ...] = (("is", "are"),) * 8 + (("was", "were"),)
    orders: tuple[Order, ...] = ORDERS
    mentions: tuple[int, ...] = (1, 1, 1, 1, 2, 2, 2, 2, 3, 4)
    """How many groups a caption sets out to mention; the image may have fewer."""

    def part(self, part: str) -> "Language":
        """Return the language with those frames of the long lists that belong to `part`."""
        split = {
            field.name: share(value, part)
            for field in fields(self)
            if (value := getattr(self, field.name)) and isinstance(value[0], str)
        }
        return Language(**{field.name: getattr(self, field.name) for field in fields(self)} | split)


ENGLISH = Language()


@cache
def language(part: str) -> Language:
    return ENGLISH.part(part)


def facts_in_order(scene: Scene, groups: Sequence[Group], world: World) -> dict[Fact, Any]:
    """Return everything a text can say about `scene` if it mentions `groups` in this order.

    The layout is the cells in the order of mention. A group that the image does not have has the count 0.
    """
    facts: dict[Fact, Any] = {LAYOUT: tuple(group.cell for group in groups), BACKGROUND: scene.background}
    for i, group in enumerate(groups):
        facts["colour", i], facts["shape", i] = group.colour, group.shape
        facts["size", i], facts["count", i] = group.size, group.count
    for i in range(len(groups), 1 + max(world.group_numbers)):
        facts.update({("colour", i): None, ("shape", i): None, ("size", i): None, ("count", i): 0})
    return facts


@cache
def _layouts(world: World, order: tuple[int, ...] | None) -> tuple[Layout, ...]:
    """Return the layouts in every order of mention, or in one."""
    if order is not None:
        return tuple(tuple(sorted(cells, key=order.index)) for cells in world.layouts())
    return tuple(ordered for cells in world.layouts() for ordered in permutations(cells))


@cache
def possible_facts(world: World, order: tuple[int, ...] | None = None) -> Mapping[Fact, Sequence[Any]]:
    """Return the values that each fact may have before anything is said, if groups are mentioned in any order, or in
    one that has been announced."""
    values: dict[Fact, Sequence[Any]] = {LAYOUT: _layouts(world, order), BACKGROUND: world.backgrounds}
    for i in range(1 + max(world.group_numbers)):
        values["colour", i], values["shape", i], values["size", i] = world.colours, world.shapes, world.sizes
        values["count", i] = (
            *((0,) if i >= min(world.group_numbers) else ()),
            *(world.counts if i < max(world.group_numbers) else ()),
        )
    return values


class Speaker:
    """Say things about a scene. All free choices go through `rng.choice`, and none depends on an untold fact.

    A frame is about `subject`, the number of a group in the order of mention, and may mention the group `other`.
    """

    def __init__(
        self,
        scene: Scene,
        rng: random.Random,
        *,
        false: Facts | None = None,
        world: World | None = None,
        part: str = TRAINING,
        words: Language | None = None,
        surface: Surface | None = None,
    ) -> None:
        world = world or World()
        self.rng, self.world = rng, world
        self.words = words or language(part)
        self.filler = Filler(rng, part)
        announced = rng.choice(self.words.orders) if self.words.orders and self.chance(0.1) else None
        if announced:
            groups = in_order(scene, announced.cells)
            truths = [facts_in_order(scene, groups, world)]
        else:
            groups = scene.groups
            if self.chance(0.25):
                groups = rng.choice(tuple(permutations(groups)))
            others = [order for order in permutations(scene.groups) if order != groups]
            truths = [facts_in_order(scene, order, world) for order in (groups, *others)]
        told = {**facts_in_order(scene, groups, world), **(false or {})}
        if announced:
            told[LAYOUT] = tuple(sorted(told[LAYOUT], key=announced.cells.index))
        possible = possible_facts(world, announced.cells if announced else None)
        spelling = (surface or Surface(rng)).spell
        self.caption = CaptionWriter(told, truths, possible, spelling)
        self.subject = self.other = 0
        self.mentioned = 0
        """How many groups the text has mentioned."""
        self.question: tuple[Fact, Callable[[Any], str]] = (BACKGROUND, str)
        """The fact that a question was about, and the answer for each of its values."""
        self.exhausted = False
        """Whether the text has said that there is no further group."""
        self.stated: list[set[str]] = [set() for _ in range(1 + max(world.group_numbers))]
        self.shapes: Words = rng.choice(self.words.shapes)
        self.colours: Words = rng.choice(self.words.colours)
        self.backgrounds: Words = rng.choice(self.words.backgrounds)
        self.sizes: Words = rng.choice(self.words.sizes)
        self.counts: Words = rng.choice(self.words.counts)
        self.relations: Words = rng.choice(self.words.relations)
        self.heights = rng.choice(self.words.heights)
        self.between = rng.choice(self.words.hyphens)
        self.being = rng.choice(self.words.beings)
        if announced:
            self.caption.say(announced.announcement)

    def chance(self, probability: float) -> bool:
        """Choose with a probability that is a multiple of 0.05."""
        yes = round(20 * probability)
        return bool(self.rng.choice((True,) * yes + (False,) * (20 - yes)))

    def fill(self, template: str) -> None:
        """Say `template` with its slots and fillers filled."""
        parts = re.split(r"(\{\w+\})", self.filler.fill(template))
        for k, part in enumerate(parts):
            if part.startswith("{"):
                following = parts[k + 1].split() if k + 1 < len(parts) else []
                self.next_word = following[0] if following else ""
                getattr(self, f"_{part[1:-1]}")()
            else:
                self.caption.say(part)
            if self._cut:
                self._cut = False
                return

    _cut = False
    """Whether the rest of the noun phrase is to be left out, as there is no further group."""
    next_word = ""

    def choose(self, templates: Sequence[str]) -> str:
        return self.rng.choice(templates)

    def section(self, speak: Callable[[], T]) -> tuple[Caption, T]:
        """Return what `speak` says, as a text of its own, and what it returns."""
        self.caption.begin()
        result = speak()
        return Caption(self.caption.text, tuple(self.caption.spans)), result

    # Frames

    def introduce(self, templates: Sequence[str]) -> None:
        """Say a frame that mentions the next group, or that there is none."""
        self.subject = self.mentioned
        if self.mentioned:
            self.other = self.rng.choice(range(self.mentioned))
        self.fill(self.choose(templates))

    def exists(self, i: int) -> bool:
        """Return whether the text implies that there is a group `i`."""
        return 0 not in self.caption.values(("count", i))

    def state(self, templates: Sequence[str]) -> None:
        """Say a frame about groups that the text has mentioned; of three drawn, the first that fits the text so far."""
        for _ in range(3):
            template = self.choose(templates)
            self.subject = self.rng.choice(range(self.mentioned))
            others = [i for i in range(self.mentioned) if i != self.subject]
            if "{it" in template or "{them}" in template:
                self.subject = self.mentioned - 1
                others = [i for i in range(self.mentioned) if i != self.subject]
            if "{other}" in template:
                if not others:
                    continue
                self.other = self.rng.choice(others)
            if self._fits(template):
                self.fill(template)
                return
        self.fill("<clause>")

    def _fits(self, template: str) -> bool:
        stated = self.stated[self.subject]
        if "{compared}" in template and "size" not in self.stated[self.other]:
            return False
        return not any(f"{{{slot}}}" in template and kind in stated for slot, kind in _ONCE)

    # Slots

    def _np(self) -> None:
        self.subject = self.mentioned
        if self.words.bare_nouns and self.chance(0.1):
            self._bare()
        else:
            self._noun_phrase(self.choose(self.words.nouns), bare=False)

    def _bare(self) -> None:
        """Mention the next group without a count, as in tags."""
        i = self.subject = self.mentioned
        nouns = self.words.bare_nouns
        if not self.exists(i):
            nouns = tuple(noun for noun in nouns if noun.startswith("{")) or nouns
        self._noun_phrase(self.choose(nouns), bare=True)

    def _noun_phrase(self, noun: str, bare: bool) -> None:
        i = self.subject
        if bare and not self.exists(i):
            there_is = self.caption.ask(("count", i), lambda n: n > 0)
            self._agree()
            if not there_is:
                self._say_nothing()
                return
        self.counted_as = self.counts
        if i and self.words.further_counts and not bare and self.chance(0.1):
            self.counted_as = self.rng.choice(self.words.further_counts)
        self.nothing = self.rng.choice(self.words.nothings) if not self.exists(i) else ""
        self.mentioned = i + 1
        self.fill(noun)
        if not self.exhausted:
            self.fill(self.choose(self.words.places))

    def _say_nothing(self) -> None:
        self.caption.say(self.rng.choice(self.words.nothings))
        self._end_of_groups()

    def _end_of_groups(self) -> None:
        self.exhausted = True
        self.subject = max(0, self.mentioned - 1)

    def _count(self) -> None:
        i, counts = self.subject, self.counted_as

        def wording(n: int) -> str:
            return self.nothing if n == 0 else lexicon.with_article(counts[n], self.next_word)

        self._tell(("count", i), wording)
        if self.caption.is_known(("count", i)) and self.caption.value(("count", i)) == 0:
            self.mentioned = i
            self._cut = True
            self._end_of_groups()

    def _tell(self, fact: Fact, wording: Any) -> None:
        self.caption.tell(fact, wording)
        self._agree()

    def _agree(self) -> None:
        """Let what the text implies about the number of groups hold for both facts that depend on it."""
        caption = self.caption
        for i in range(max(self.world.group_numbers)):
            numbers = {len(layout) for layout in caption.values(LAYOUT)}
            counts = caption.values(("count", i))
            if min(numbers) > i:
                caption.restrict(("count", i), lambda n: n > 0)
            elif max(numbers) <= i:
                caption.restrict(("count", i), lambda n: n == 0)
            if 0 not in counts:
                caption.restrict(LAYOUT, lambda layout, i=i: len(layout) > i)  # type: ignore[misc]
            elif not any(counts):
                caption.restrict(LAYOUT, lambda layout, i=i: len(layout) <= i)  # type: ignore[misc]

    def _colour(self) -> None:
        i = self.subject
        self.caption.tell(("colour", i), lambda colour: self.colours[colour])
        self.stated[i].add("colour")
        for other in range(len(self.stated)):
            if other != i:
                self.caption.rule_out(("colour", other), self.caption.value(("colour", i)))

    def _size(self) -> None:
        self.caption.tell(("size", self.subject), lambda size: self.sizes[size])
        self.stated[self.subject].add("size")

    def _shape(self) -> None:
        def wording(shape: str, count: int) -> str:
            name = self.shapes[shape]
            return name if count == 1 else lexicon.plural(name)

        self.caption.tell_together((("shape", self.subject), ("count", self.subject)), wording)
        self._agree()
        self.stated[self.subject].add("shape")

    def _kind(self) -> None:
        """Say what a group consists of, after "it is" or "they are"."""

        def wording(shape: str, count: int) -> str:
            name = self.shapes[shape]
            return f"a {name}" if count == 1 else lexicon.plural(name)

        self.caption.tell_together((("shape", self.subject), ("count", self.subject)), wording)
        self.stated[self.subject].add("shape")

    def _single(self) -> None:
        """Say the name of the shape alone, as the value of a field."""
        self.caption.tell(("shape", self.subject), lambda shape: self.shapes[shape])
        self.stated[self.subject].add("shape")

    def _ones(self) -> None:
        """Say what the members of a group are, in the plural."""
        stated, i = self.stated[self.subject], self.subject
        if "shape" in stated:
            self.caption.tell(("shape", i), lambda shape: lexicon.plural(self.shapes[shape]))
        elif "colour" in stated:
            self.caption.tell(("colour", i), lambda colour: self.colours[colour])
            self.caption.say("ones")
        else:
            self.caption.say("things")

    def _thing(self) -> None:
        thing = self.rng.choice(self.words.things)
        self._tell(("count", self.subject), lambda n: thing if n == 1 else thing + "s")

    def _number(self) -> None:
        counts = self.rng.choice(self.words.exact_counts)
        self._tell(("count", self.subject), lambda n: counts[n])
        self.stated[self.subject].add("number")

    def _agreeing(self, singular: str, plural: str, i: int | None = None) -> None:
        fact = ("count", self.subject if i is None else i)
        self._tell(fact, lambda n: singular if n <= 1 else plural)

    def _be(self) -> None:
        self._agreeing(*self.being)

    def _seem(self) -> None:
        self._agreeing(*self.rng.choice((("seems", "seem"), ("appears", "appear"), ("looks", "look"))))

    def _look(self) -> None:
        self._agreeing("looks", "look")

    def _sits(self) -> None:
        singular, plural = self.filler.one("sits").split("/")
        self._agreeing(singular, plural)

    def _was(self) -> None:
        self._agreeing(*self.being, self.mentioned - 1)

    def _sat(self) -> None:
        singular, plural = self.filler.one("sits").split("/")
        self._agreeing(singular, plural, self.mentioned - 1)

    def _answer(self) -> None:
        self._tell(*self.question)

    def _meets(self) -> None:
        singular = self.rng.choice(("meets", "faces", "joins", "greets", "follows", "accompanies"))
        plural = "accompany" if singular == "accompanies" else singular[:-1]
        self._agreeing(singular, plural, self.other)

    def _it(self) -> None:
        self._agreeing("it", "they")

    def _them(self) -> None:
        self._agreeing("it", "them")

    def _its(self) -> None:
        self._agreeing("its", "their")

    def _the(self) -> None:
        self._mention(self.subject)

    def _other(self) -> None:
        subject = self.subject
        self._mention(self.other)
        self.subject = subject

    def _mention(self, i: int) -> None:
        """Mention a group again, by what the text has stated about it."""
        stated, self.subject = self.stated[i], i
        if {"colour", "shape"} <= stated:
            choices = ["the {colour} {shape}"] * 4 + [
                "the {colour} {one}",
                "this {colour} {shape}",
                "the <adj> {colour} {shape}",
            ]
            if "size" in stated:
                choices.append("the {size} {colour} {shape}")
            if self.mentioned == 1:
                choices += ["the {shape}"] * 3
        elif "colour" in stated:
            choices = ["the {colour} {one}", "the {colour} {thing}"]
        elif "shape" in stated:
            choices = ["the {shape}"]
        else:
            choices = ["the {thing}"]
        self.fill(self.rng.choice(choices))

    def _one(self) -> None:
        self._agreeing("one", "ones")

    def _background(self) -> None:
        self.caption.tell(BACKGROUND, lambda background: self.backgrounds[background])

    def _kinds(self) -> None:
        self._tell(LAYOUT, lambda layout: lexicon.KINDS[len(layout)])

    def _corner(self) -> None:
        i = self.subject

        def wording(layout: Layout) -> str:
            row, column = divmod(layout[i], GRID)
            return f"{self.heights[row]}{self.between}{lexicon.SIDES[column]}"

        self._tell(LAYOUT, wording)

    def _height(self) -> None:
        i = self.subject
        self._tell(LAYOUT, lambda layout: self.heights[layout[i] // GRID])

    def _side(self) -> None:
        i = self.subject
        self._tell(LAYOUT, lambda layout: lexicon.SIDES[layout[i] % GRID])

    def _after(self) -> None:
        here, there = self.subject, self.other
        self._tell(LAYOUT, lambda layout: self.relations[relation(layout[here], layout[there])])

    def _before(self) -> None:
        """Say where the group mentioned last lies as seen from the next one, or that there is no next one."""
        here, there = self.mentioned - 1, self.mentioned
        alone = self.rng.choice(self.words.alone)

        def wording(layout: Layout) -> str:
            return self.relations[relation(layout[here], layout[there])] if len(layout) > there else alone

        self._tell(LAYOUT, wording)
        if not self.exists(there):
            self._cut = True
            self._end_of_groups()

    def _compared(self) -> None:
        words = self.rng.choice(self.words.comparisons)

        def wording(size: str, other: str) -> str:
            return words["same" if size == other else "more" if size == "large" else "less"]

        self.caption.tell_together((("size", self.subject), ("size", self.other)), wording)
        self.stated[self.subject].add("size")


_ONCE = (("colour", "colour"), ("size", "size"), ("kind", "shape"), ("number", "number"))
"""Slots of statements, and what makes them repetitions."""
