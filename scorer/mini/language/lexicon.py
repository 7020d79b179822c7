"""List the English words for what a scene contains. Each tuple has alternatives of equal weight; repeats are weights.

A mapping gives every value its words; the first of each tuple is the plain one. No other word of the language may be
one of these (`visual_words`), so that a word that needs the image is never mistaken for one that does not.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

Words = Mapping[Any, str]


def _plainly(plain: Words, weight: int, *changes: Words) -> tuple[Words, ...]:
    """Return `plain`, `weight` times, and then once with each of `changes`."""
    return (*[plain] * weight, *({**plain, **change} for change in changes))


SHAPES = _plainly(
    {name: name for name in ("circle", "square", "triangle", "star", "cross", "ring", "heart")},
    9,
    {"circle": "disc", "cross": "plus sign", "ring": "hoop"},
    {"circle": "dot", "square": "box", "cross": "plus"},
    {"circle": "disk", "ring": "donut", "heart": "love heart"},
    {"circle": "ball", "square": "quadrilateral", "ring": "loop"},
    {"circle": "round shape", "square": "square shape", "triangle": "triangular shape", "star": "star shape",
     "cross": "cross shape", "ring": "ring shape", "heart": "heart shape"},
)  # fmt: skip

COLOURS = _plainly(
    {name: name for name in ("red", "green", "blue", "yellow", "purple", "pink", "brown")},
    9,
    {"purple": "violet"},
    {"purple": "violet", "red": "crimson", "blue": "cobalt", "yellow": "golden"},
    {"red": "scarlet", "green": "jade", "pink": "rosy", "brown": "chestnut"},
)

BACKGROUNDS = _plainly(
    {name: name for name in ("white", "black", "grey", "beige")},
    6,
    *[{"grey": "gray"}] * 5,
    {"beige": "cream", "grey": "gray"},
    {"beige": "tan"},
    {"beige": "sandy"},
)

SIZES: tuple[Words, ...] = (
    *[{"small": "small", "large": "large"}] * 4,
    *[{"small": "small", "large": "big"}] * 3,
    *[{"small": "little", "large": "big"}] * 2,
    *[{"small": "tiny", "large": "huge"}] * 2,
    {"small": "tiny", "large": "large"},
    {"small": "miniature", "large": "giant"},
    {"small": "mini", "large": "gigantic"},
)

_DIGITS = {1: "1", 2: "2", 3: "3"}
COUNTS: tuple[Words, ...] = (
    *[{1: "a", 2: "two", 3: "three"}] * 12,
    *[{1: "one", 2: "two", 3: "three"}] * 4,
    *[_DIGITS] * 3,
    {1: "a", 2: "2", 3: "3"},
    {1: "a single", 2: "two", 3: "three"},
    {1: "one single", 2: "two", 3: "three"},
    {1: "a lone", 2: "two", 3: "three"},
    {1: "just one", 2: "just two", 3: "just three"},
    {1: "exactly one", 2: "exactly two", 3: "exactly three"},
    {1: "a", 2: "some", 3: "some"},
    {1: "a", 2: "several", 3: "several"},
)
"""How many there are of a group, as its noun phrase begins."""

FURTHER_COUNTS: Words = {1: "another", 2: "two more", 3: "three more"}
"""The same for a group that is not the first."""

COLLECTIVES: tuple[Words, ...] = (
    {1: "a", 2: "a pair of", 3: "three"},
    {1: "a", 2: "a pair of", 3: "a trio of"},
    {1: "one", 2: "a couple of", 3: "three"},
)
"""The same, with words for two or three that begin like the word for one."""

EXACT_COUNTS: tuple[Words, ...] = (*[{1: "one", 2: "two", 3: "three"}] * 3, _DIGITS)
"""The same where the number stands alone."""

NOTHINGS = ("nothing else", "nothing else", "nothing more", "nothing further", "no other shape", "no more shapes",
            "no further figure")  # fmt: skip
"""What stands in place of a group that the image does not have."""

ALONE = ("alone", "all alone", "by itself", "alone", "on its own")
"""What stands in place of a relation to a group that the image does not have."""

KINDS: Words = {1: "one", 2: "two", 3: "three", 4: "four"}

HEIGHTS = (*[("top", "bottom")] * 3, ("upper", "lower"))
SIDES = ("left", "right")
_NAMES = ("left", "right", "above", "below", "diagonal")
RELATIONS: tuple[Words, ...] = tuple(
    dict(zip(_NAMES, words, strict=True))
    for words in (
        ("to the left of", "to the right of", "above", "below", "diagonally across from"),
        ("to the left of", "to the right of", "above", "below", "diagonally opposite"),
        ("on the left of", "on the right of", "over", "under", "cornerwise from"),
        ("left of", "right of", "higher than", "lower than", "across from"),
        ("on the left side of", "on the right side of", "on top of", "underneath", "kitty-corner from"),
        ("just left of", "just right of", "just above", "just below", "diagonally from"),
    )
)

COMPARISONS: tuple[Words, ...] = (
    {"more": "bigger than", "less": "smaller than", "same": "as large as"},
    {"more": "larger than", "less": "smaller than", "same": "the same size as"},
)

# Words that a slot may say, but that are in none of the mappings above.
_FURTHER = """
    an are aren't is isn't was were yes no not none nothing pair couple trio singular plural them they it its their
    this these those that one's zero four another more fewer horizontal vertical middle centre center circular round
    alone own itself starry squared ringed crossed grayish violets oranges orange cyan magenta turquoise lime navy teal
    maroon gold silver ivory size sized colour color colours colors shape shapes figure figures thing things
    object objects
"""


def plural(noun: str) -> str:
    """Return the plural of a shape's name."""
    return noun + ("es" if noun.endswith(("s", "x")) else "s")


def with_article(words: str, after: str) -> str:
    """Return `words`, which may end in "a", as they stand before the word `after`."""
    is_article = words == "a" or words.endswith(" a")
    return words + "n" if is_article and re.match(r"[aeiou](?!ne\b|ni)", after) else words


def _said() -> Iterator[str]:
    for mappings in (
        SHAPES,
        COLOURS,
        BACKGROUNDS,
        SIZES,
        COUNTS,
        COLLECTIVES,
        RELATIONS,
        COMPARISONS,
        (FURTHER_COUNTS, KINDS),
    ):
        for mapping in mappings:
            yield from mapping.values()
    yield from (word for pair in HEIGHTS for word in pair)
    yield from (*SIDES, *NOTHINGS, _FURTHER)


@cache
def visual_words() -> frozenset[str]:
    """Return every word, in the singular and the plural, that may need the image; lower case."""
    words = {word for said in _said() for word in re.split(r"[\s-]+", said) if word}
    return frozenset(words | {plural(word) for word in words} - {"the", "of"})


def spellings() -> list[str]:
    """Return the plain words that need an image as captions may spell them: any case, with and without a space."""
    nouns = {name for mapping in SHAPES for name in mapping.values() if " " not in name}
    plain = {
        *nouns,
        *map(plural, nouns),
        *(word for mapping in (*COLOURS, *BACKGROUNDS, *SIZES) for word in mapping.values()),
        *("a", "one", "two", "three", "single", "is", "are", "left", "right", "top", "bottom", "upper", "lower"),
        *("above", "below", "nothing", "small"),
    }
    words = sorted(word for word in plain if " " not in word)
    return [
        spelt
        for word in words
        for spelt in (word, f" {word}", word.capitalize(), f" {word.capitalize()}", f" {word.upper()}")
    ]
