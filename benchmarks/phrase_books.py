"""Write captions from held-out phrase books, every word labelled; the books are JSON files in `books/`.

Each book was written by another hand than the grammar that the packaged model is trained on. A book is an object with
`name`, `voice` (who writes like this), `capitals` (whether sentences start with one) and `templates`: captions, or
objects with a `prompt` and a `text`. Groups are numbered as the template mentions them, from 1, and stand for any
groups of the scene. The slots of group 1:

    {count1} {a1}              "one", "two", "three"; "a" instead of "one"
    {size1} {size1:little/big} its size, in other words for small and large
    {colour1} {shape1}         the shape in the plural if the count says so
    {corner1} {row1} {side1}   "top left", "top", "left"; {corner1:upper/lower} for other words
    {where2-1}                 where group 2 lies as seen from group 1: "to the left of"
    {background} {kinds}       of the scene: its colour, the number of its groups
    [is|are]1                  the word for one shape, and for several

Words in angle brackets announce a further group or the end. Whether one follows is partly the template's choice, so
they have no label. All other text has to be true of every scene; it is filler.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Final

from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL, Fact, Span
from scorer.mini.language.captions import NUMBER_WORDS, Caption, relation
from scorer.mini.world import CELLS, GRID, Scene, World

BOOKS: Final = Path(__file__).parent / "books"
PLACES: Final[Fact] = ("places", 0)
"""The cells of the groups, in the order of mention."""

KINDS: Final[Fact] = ("kinds", 0)
BACKGROUND: Final[Fact] = ("background", 0)
WHERE: Final = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
    "diagonal": "diagonally from",
}
PIECE: Final = re.compile(
    r"\{(?P<slot>[a-z]+)(?P<group>\d)?(?:-(?P<other>\d))?(?::(?P<words>[^}]+))?\}"
    r"|\[(?P<one>[^]|]+)\|(?P<many>[^]|]+)\](?P<of>\d)"
    r"|<(?P<open>[^>]+)>"
)
PLACE_SLOTS: Final = ("corner", "row", "side", "where")
ATTRIBUTES: Final = ("count", "size", "colour", "shape")


@dataclass(frozen=True, slots=True)
class Template:
    """A caption with slots, and the question that it answers, if it has one of its own."""

    text: str
    prompt: str | None

    @property
    def groups(self) -> int:
        """The number of groups that it mentions."""
        found = [(m["group"], m["other"], m["of"]) for m in PIECE.finditer(self.text)]
        return max((int(number) for numbers in found for number in numbers if number), default=0)


@dataclass(frozen=True, slots=True)
class Book:
    """A held-out phrase book."""

    name: str
    voice: str
    capitals: bool
    templates: tuple[Template, ...]


def read_book(path: Path) -> Book:
    """Read a book.

    Raises:
        ValueError: the file is no JSON, a key is missing or unknown, or a template has a slot that is none.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    wanted = {"name", "voice", "capitals", "templates"}
    if not isinstance(found, dict) or found.keys() != wanted:
        raise ValueError(f"{path}: a book has the keys {', '.join(sorted(wanted))}")
    templates = tuple(
        Template(entry, None) if isinstance(entry, str) else Template(entry["text"], entry["prompt"])
        for entry in found["templates"]
    )
    for template in templates:
        rest = PIECE.sub("", template.text)
        if re.search(r"[{}\[\]<>]", rest):
            raise ValueError(f"{path}: {template.text!r} has a slot that is none; the forms are in {__file__}")
    return Book(found["name"], found["voice"], found["capitals"], templates)


def read_books() -> list[Book]:
    """Read all books, in the order of their names."""
    return [read_book(path) for path in sorted(BOOKS.glob("*.json"))]


class Writer:
    """Fill a template's slots, and label every word by what the text so far leaves open.

    A word is visual if another value that is still open would put another word in its place; it is contradictory if,
    besides, it is not the word for the true value.
    """

    def __init__(
        self, told: Mapping[Fact, Any], true: Mapping[Fact, Any], possible: Mapping[Fact, Sequence[Any]], capitals: bool
    ) -> None:
        self._told, self._true, self._capitals = told, true, capitals
        self._open = {fact: list(values) for fact, values in possible.items()}
        self.text = ""
        self.spans: list[Span] = []

    def literal(self, text: str, label: str | None = FILLER) -> None:
        """Append `text` as it is; without a `label`, its words have none."""
        start = len(self.text)
        self.text += text
        for word in re.finditer(r"\S+", text) if label else ():
            self._span(start + word.start(), start + word.end(), label or "")

    def tell(self, fact: Fact, wording: Callable[[Any], str]) -> None:
        """Append the words for the told value of `fact`, and narrow down the open values with each of them."""
        true_words = wording(self._true[fact]).split()
        for k, word in enumerate(wording(self._told[fact]).split()):
            options = {value: wording(value).split()[k : k + 1] for value in self._open[fact]}
            is_open = any(option != [word] for option in options.values())
            self._open[fact] = [value for value, option in options.items() if option == [word]]
            agrees = true_words[k : k + 1] == [word]
            written = word[0].upper() + word[1:] if self._capitals and self._starts_sentence() else word
            self.text += " " if k else ""
            start = len(self.text)
            self.text += written
            self._span(start, len(self.text), FILLER if not is_open else VISUAL if agrees else CONTRADICTORY)

    def rule_out(self, fact: Fact, value: Any) -> None:
        """Record that `fact` cannot have `value`."""
        self._open[fact] = [other for other in self._open[fact] if other != value]

    def told(self, fact: Fact) -> Any:
        """Return the told value of a fact that the text has stated.

        Raises:
            ValueError: the text leaves more than one value open, so that its form would give the value away.
        """
        if len(self._open[fact]) != 1:
            raise ValueError(f"{fact} is used before the text has stated it: {self.text!r}")
        return self._told[fact]

    def _starts_sentence(self) -> bool:
        return not self.text or re.search(r"[.!?]\s*$", self.text) is not None

    def _span(self, start: int, end: int, label: str) -> None:
        first = len(self.text[:start].encode())
        self.spans.append(Span(first, first + len(self.text[start:end].encode()), label))


def facts_told(scene: Scene, mentioned: Sequence[int]) -> dict[Fact, Any]:
    """Return everything that a template can say about `scene`, `mentioned` being the groups in the order of mention."""
    groups = [scene.groups[index] for index in mentioned]
    facts: dict[Fact, Any] = {
        PLACES: tuple(group.cell for group in groups),
        KINDS: len(scene.groups),
        BACKGROUND: scene.background,
    }
    for number, group in enumerate(groups, start=1):
        facts |= {(kind, number): getattr(group, kind) for kind in ATTRIBUTES}
    return facts


def possible_values(world: World, groups: int) -> dict[Fact, tuple[Any, ...]]:
    values: dict[Fact, tuple[Any, ...]] = {
        PLACES: tuple(permutations(range(CELLS), groups)),
        KINDS: tuple(number for number in sorted(set(world.group_numbers)) if number >= groups),
        BACKGROUND: world.backgrounds,
    }
    for number in range(1, groups + 1):
        values |= {
            ("count", number): world.counts,
            ("size", number): world.sizes,
            ("colour", number): world.colours,
            ("shape", number): world.shapes,
        }
    return values


def _fill_slots(template: Template, writer: Writer) -> None:
    end = 0
    for match in PIECE.finditer(template.text):
        writer.literal(template.text[end : match.start()])
        end = match.end()
        if match["open"]:
            writer.literal(match["open"], None)
        elif match["of"]:
            # The form follows from the count, which has been said: it is filler.
            writer.literal(match["one"] if writer.told(("count", int(match["of"]))) == 1 else match["many"])
        else:
            fact, wording = _slot(match, writer)
            writer.tell(fact, wording)
            if fact[0] == "colour":  # two groups never share a colour
                for other in range(1, template.groups + 1):
                    if other != fact[1]:
                        writer.rule_out(("colour", other), writer.told(fact))
    writer.literal(template.text[end:])


def _slot(match: re.Match[str], writer: Writer) -> tuple[Fact, Callable[[Any], str]]:
    """Return the fact that a slot states, and the words for each of its values.

    Raises:
        ValueError: there is no such slot, or a shape comes before its count.
    """
    slot, words = match["slot"], tuple((match["words"] or "").split("/"))
    number = int(match["group"] or 0)
    if slot in ("count", "a"):
        return ("count", number), lambda n: NUMBER_WORDS.get(n, "a" if slot == "a" else "one")
    if slot == "size":
        named = dict(zip(("small", "large"), words if len(words) == 2 else ("small", "large"), strict=True))
        return ("size", number), lambda size: named[size]
    if slot == "colour":
        return ("colour", number), str
    if slot == "shape":
        plural = writer.told(("count", number)) > 1
        return ("shape", number), lambda shape: shape + ("es" if shape == "cross" else "s") * plural
    if slot == "background":
        return BACKGROUND, str
    if slot == "kinds":
        return KINDS, lambda n: NUMBER_WORDS.get(n, "one")
    if slot == "where":
        there = int(match["other"])
        return PLACES, lambda cells: WHERE[relation(cells[number - 1], cells[there - 1])]
    if slot in PLACE_SLOTS:
        heights = words if len(words) == 2 else ("top", "bottom")

        def wording(cells: tuple[int, ...]) -> str:
            row, column = divmod(cells[number - 1], GRID)
            parts = {"row": heights[row], "side": ("left", "right")[column]}
            return parts.get(slot, f"{parts['row']} {parts['side']}")

        return PLACES, wording
    raise ValueError(f"{{{slot}}} is no slot")


def stated(template: Template) -> Iterator[Fact]:
    """Yield the facts that `template` states, each once."""
    kinds = {"a": "count", **dict.fromkeys(PLACE_SLOTS, "places")}
    found: dict[Fact, None] = {}
    for match in PIECE.finditer(template.text):
        if match["slot"]:
            kind = kinds.get(match["slot"], match["slot"])
            found[kind, int(match["group"] or 0) if kind in ATTRIBUTES else 0] = None
    yield from found


def false_value(scene: Scene, fact: Fact, true: Any, rng: random.Random) -> Any:
    """Return another value for `fact` that no group of the scene has, or the true one if there is none.

    A template's groups stand for any of the scene's, so that "two" is false only if nothing is there twice.
    """
    world, kind = World(), fact[0]
    if kind == "places":
        return rng.choice(list(permutations(range(CELLS), len(true))))
    if kind == "kinds":
        return rng.choice([n for n in sorted(set(world.group_numbers)) if n != true])
    if kind == "background":
        return rng.choice([colour for colour in world.backgrounds if colour != true])
    values = {"count": world.counts, "size": world.sizes, "colour": world.colours, "shape": world.shapes}[kind]
    there = {getattr(group, kind) for group in scene.groups}
    return rng.choice([value for value in values if value not in there] or [true])


def fill(book: Book, template: Template, scene: Scene, mentioned: Sequence[int], false: Mapping[Fact, Any]) -> Caption:
    true = facts_told(scene, mentioned)
    writer = Writer({**true, **false}, true, possible_values(World(), template.groups), book.capitals)
    _fill_slots(template, writer)
    return Caption(writer.text, tuple(writer.spans), next((kind for kind, _ in false), None))


def write_from(
    book: Book, scene: Scene, rng: random.Random, *, false: bool = False, attempts: int = 500
) -> tuple[str | None, Caption]:
    """Return a template's prompt and its caption of `scene`; if `false`, one word of it is contradicted by the image.

    Where a group lies is falsified only on scenes that the other groups cannot make true again: those whose groups are
    all mentioned, in a caption that names each by its colour first. Other false places are discarded.

    Raises:
        RuntimeError: no such caption was found in `attempts` tries.
    """
    for _ in range(attempts):
        template = rng.choice([one for one in book.templates if one.groups <= len(scene.groups)])
        mentioned = rng.sample(range(len(scene.groups)), template.groups)
        if not false:
            return template.prompt, fill(book, template, scene, mentioned, {})
        facts = list(stated(template))
        if not facts:
            continue
        fact = rng.choice(facts)
        true = facts_told(scene, mentioned)
        value = false_value(scene, fact, true[fact], rng)
        if fact == PLACES and not _places_are_bound(template, scene):
            continue
        caption = fill(book, template, scene, mentioned, {fact: value})
        if sum(span.label == CONTRADICTORY for span in caption.spans) == 1:
            return template.prompt, caption
    raise RuntimeError(f"{book.name}: found no caption of {scene} with one false word in {attempts} attempts")


def _places_are_bound(template: Template, scene: Scene) -> bool:
    """Return whether every place in `template` is said of a group that the text has named by its colour, or that is
    the only one of the scene: else the place may be that of another group."""
    if len(scene.groups) == 1:
        return True
    named: set[str] = set()
    for match in PIECE.finditer(template.text):
        if match["slot"] == "colour":
            named.add(match["group"])
        placed = {match["group"], match["other"]} - {None} if match["slot"] in PLACE_SLOTS else set()
        if not placed <= named:
            return False
    return True
