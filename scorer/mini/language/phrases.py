"""The caption grammar as data: templates with slots, which `captions` fills.

Slots: `{np}` first mention of a group, `{be}` is/are for it, `{after}` where it lies as seen from the group before it,
`{before}` the reverse, `{corner}` its own place, `{the}` repeated mention of it, `{the_previous}` and `{them}` of the
group before it, `{size}`, `{background}`, `{kinds}` the number of groups.

Two rules keep the labels exact. A fixed phrase has no word that a slot could say at the same place (so there is no
"picture of a ..."). And if a text may either continue with a further group or stop, the two differ in their first
word, which therefore gives the answer.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Order:
    """An order of visiting the cells; `announcement` opens the caption and is empty for reading order."""

    announcement: str
    cells: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Phrasebook:
    """Every free choice of the grammar; each field lists alternatives of equal weight.

    The exception is `most_sentences`: a caption with that many sentences gets no further one.
    """

    orders: tuple[Order, ...]
    styles: tuple[str, ...]
    openers: tuple[str, ...]
    nouns: tuple[str, ...]
    places: tuple[str, ...]
    finals: tuple[str, ...]
    chains: tuple[str, ...]
    endings: tuple[str, ...]
    firsts: tuple[str, ...]
    continuations: tuple[str, ...]
    followups: tuple[str, ...]
    closers: tuple[str, ...]
    extra_sentences: tuple[int, ...]
    most_sentences: int
    ones: tuple[str, ...]
    sizes: tuple[dict[str, str], ...]
    relations: tuple[dict[str, str], ...]
    heights: tuple[tuple[str, str], ...]


READING, TO_THE_RIGHT, TO_THE_LEFT, UPWARD = (0, 1, 2, 3), (0, 2, 1, 3), (1, 3, 0, 2), (2, 3, 0, 1)

ORDERS = (
    *(Order("", READING) for _ in range(12)),
    Order("from left to right,", TO_THE_RIGHT),
    Order("starting on the left,", TO_THE_RIGHT),
    Order("from right to left,", TO_THE_LEFT),
    Order("going leftward from the right,", TO_THE_LEFT),
    Order("from bottom to top,", UPWARD),
    Order("seen from the bottom up,", UPWARD),
)

OPENERS = (
    *("" for _ in range(8)),
    *("there {be}" for _ in range(4)),
    "here {be}", "the image shows", "the picture shows", "the image depicts", "the picture contains",
    "the drawing shows", "the scene contains", "the scene consists of", "this image shows", "this picture shows",
    "this drawing depicts", "this is the picture of", "this is the drawing of", "shown here {be}", "we can see",
    "we see", "you can see", "you see", "in this picture you can see", "in this picture there {be}",
    "in the image there {be}", "in the drawing we see", "in this scene there {be}", "what you see {be}",
    "what the picture shows {be}", "visible in the image {be}", "pictured here {be}", "somebody has drawn",
    "the artist has drawn", "the photo’s subject is simple:", "the picture is simple – it shows",
    "it seems that the image shows", "as far as we can see, the image shows", "looking closely, we see",
    "without doubt the picture shows", "on {background} there {be}", "on the {background} background there {be}",
    "against the {background} backdrop we see", "over {background} the picture shows",
    "counting the kinds of shapes gives {kinds}:", "number of kinds of shapes: {kinds}; these are",
)  # fmt: skip

NOUNS = (
    "{count} {size} {colour} {shape}",
    "{count} {size} {colour} {shape}",
    "{count} {colour} {shape}",
    "{count} {colour} {shape}",
    "{count} {size} {shape} in {colour}",
    "{count} {shape} in {colour}",
    "{count} {colour} {shape} of {size} size",
    "{count} {shape} coloured {colour}",
)

PLACES = ("", "", "", "", "", "in the {corner} corner", "at the {corner}", "placed at the {corner}")

CHAINS = ("{before}", "{before}", "plus", "then", "followed by", "next to", "near", "accompanied by", "alongside")

FINALS = ("and", "and", "and", "and also", "as well as", "together with")

ENDINGS = (
    ".",
    ".",
    ".",
    "upon {background}.",
    "against {background}.",
    "against the {background} background.",
    "set against the plain {background} backdrop.",
    "– nothing else.",
    "– that is all.",
)

FIRSTS = (
    "first there {be} {np}",
    "first of all there {be} {np}",
    "to begin with, there {be} {np}",
    "to start with, we see {np}",
    "first, look for {np}",
    "for a start there {be} {np}",
    "at first sight, you notice {np}",
    "let us begin with {np}",
)

CONTINUATIONS = (
    "then there {be} {np}",
    "then we see {np}",
    "next you notice {np}",
    "also present {be} {np}",
    "besides, there {be} {np}",
    "furthermore we see {np}",
    "{after} {them} {be} {np}",
    "{after} {them} there {be} {np}",
    "{after} {them} we see {np}",
    "{after} {the_previous} {be} {np}",
    "{after} {the_previous} you can see {np}",
)

FOLLOWUPS = (
    "the background is {background}.",
    "the backdrop is plain {background}.",
    "the whole scene has the {background} background.",
    "behind everything lies plain {background}.",
    "{the} {be} {after} {the_previous}.",
    "{the} {be} {after} {the_previous}.",
    "{the} can be found {after} {the_previous}.",
    "{the} {be} {size}.",
    "in terms of size, {the} {be} {size}.",
    "{the} {be} in the {corner} corner.",
    "look for {the} at the {corner}.",
    "{closer}",
    "{closer}",
)

CLOSERS = (
    "nothing else is in the picture.",
    "nothing else can be seen.",
    "that is all there is to see.",
    "that is everything.",
    "no other shapes are visible.",
    "no people are in the picture.",
    "it is the simplest kind of drawing.",
    "it looks like the work of the computer.",
    "everything has clean edges.",
    "everything is drawn in flat colours.",
    "all shapes are easy to recognise.",
    "all in all, it is the plainest of pictures.",
    "the rest of the picture is empty.",
    "the drawing is very simple.",
    "the edges are smooth.",
    "the style is that of children’s books.",
    "otherwise the picture is empty.",
    "there is nothing more to say.",
    "no text can be read anywhere.",
    "it could be part of the naïve painter’s sketchbook.",
)

_NAMES = ("left", "right", "above", "below", "diagonal")
RELATIONS = (
    dict(zip(_NAMES, ("to the left of", "to the right of", "above", "below", "diagonally from"), strict=True)),
    dict(zip(_NAMES, ("on the left of", "on the right of", "over", "under", "cornerwise from"), strict=True)),
    dict(zip(_NAMES, ("left of", "right of", "higher than", "lower than", "across from"), strict=True)),
)

FULL = Phrasebook(
    orders=ORDERS,
    styles=("list", "list", "list", "chain", "chain", "sentences", "sentences"),
    openers=OPENERS,
    nouns=NOUNS,
    places=PLACES,
    finals=FINALS,
    chains=CHAINS,
    endings=ENDINGS,
    firsts=FIRSTS,
    continuations=CONTINUATIONS,
    followups=FOLLOWUPS,
    closers=CLOSERS,
    extra_sentences=(0, 0, 1, 1, 1, 2),
    most_sentences=4,
    ones=("a", "a", "a", "one"),
    sizes=(
        {"small": "small", "large": "large"},
        {"small": "little", "large": "big"},
        {"small": "tiny", "large": "huge"},
    ),
    relations=RELATIONS,
    heights=(("top", "bottom"), ("upper", "lower")),
)

TERSE = replace(
    FULL,
    orders=(Order("", READING),),
    styles=("list",),
    openers=("",),
    nouns=("{count} {size} {colour} {shape}",),
    places=("", "in the {corner} corner"),
    finals=("and",),
    endings=(".", "on {background}."),
    followups=("{the} {be} in the {corner} corner.", "{the} {be} {after} {the_previous}."),
    closers=("nothing else is in the picture.",),
    extra_sentences=(0, 1, 1),
    ones=("a",),
)
"""Captions of mostly visual words, for a young model."""

REPETITIVE = replace(TERSE, extra_sentences=(4,), most_sentences=5, closers=CLOSERS)
"""Terse captions that mention the same things again and again, which teaches a model to copy."""
