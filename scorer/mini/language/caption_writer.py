"""Track what a text has said about a scene so far, and label each next word by the information it adds.

A `CaptionWriter` writes a caption. For every fact about the scene it keeps the values that the text so far leaves
open. When a word depends on a fact, it compares the words for all open values::

    open values of "layout":   right of      left of       below
    wording:                   to the right  to the left   below
    word 0 (said "to"):        to            to            below     differs: visual; "below" is ruled out
    word 1 (said "the"):       the           the                     same: filler
    word 2 (said "left"):      right         left                    differs: visual; the layout is known

So a word is `visual` exactly when the image changes which words are possible after the text so far. Free choices of
phrasing must not depend on the scene; they are then `filler`, however hard to predict.

A text may mention groups in any order, so several readings of it can be true of one image: "a small ..." may be about
any small group. A word is `contradictory` once no reading is left that would say it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

VISUAL, FILLER, CONTRADICTORY = "visual", "filler", "contradictory"

Fact = tuple[str, int]
"""A kind of fact, and the group it is about (in order of mention; 0 for facts about the whole scene)."""

Facts = Mapping[Fact, Any]

PUNCTUATION = frozenset(".,:;!?")
CLOSING = PUNCTUATION | frozenset(")]}”…")
"""Pieces that follow the one before them without a space."""

OPENING = frozenset("([{“")
"""Pieces that are followed without a space."""

GLUE, LINE = "~", "⏎"
"""In words to be said: no space here; a new line here."""

Spelling = Callable[[str, bool], str]
"""Spells a piece of text, given whether it starts a sentence; "" leaves the piece out."""


@dataclass(frozen=True, slots=True)
class Span:
    """A word or punctuation mark: its half-open range of UTF-8 bytes in the text, and its label."""

    start: int
    end: int
    label: str


def in_sentence_case(piece: str, starts: bool) -> str:
    return piece[0].upper() + piece[1:] if starts else piece


class CaptionWriter:
    """Write words, and label each by the information that the image has about it.

    `told` are the facts as the text states them, `truths` the facts of the image, once for each order in which the text
    could mention its groups, beginning with the order of `told` (which differs from it if an error is planted); after a
    contradictory word, only that one counts. `possible` are the values that each fact may
    take before anything is said.
    """

    def __init__(
        self,
        told: Facts,
        truths: Sequence[Facts],
        possible: Mapping[Fact, Sequence[Any]],
        spelling: Spelling = in_sentence_case,
    ) -> None:
        self._told, self._truths, self._intended = told, list(truths), list(truths[:1])
        self._open: dict[Fact, list[Any]] = {fact: list(values) for fact, values in possible.items()}
        self._spelling = spelling
        self._pending = False
        self._sentence_starts = True
        self._glued = True
        self.text = ""
        self.spans: list[Span] = []

    def say(self, words: str) -> None:
        """Say fixed words; only the first can be visual, if it answers an open `ask`."""
        for word in words.split():
            self._write(word, FILLER)

    def tell(self, fact: Fact, wording: Callable[[Any], str]) -> None:
        """Say the wording of `fact`'s told value, and narrow down its open values with each word."""
        self.tell_together((fact,), wording)

    def tell_together(self, facts: Sequence[Fact], wording: Callable[..., str]) -> None:
        """Say words that depend on several facts, and narrow down the open values of each.

        Raises:
            ValueError: the words leave combinations open that are not all combinations of values, so that no list of
                values for each fact describes them.
        """

        def words_for(these: Facts) -> list[str]:
            return wording(*(these[fact] for fact in facts)).split()

        said = words_for(self._told)
        truths = [(true, words_for(true)) for true in self._truths]
        options = [(values, wording(*values).split()) for values in product(*(self._open[fact] for fact in facts))]
        for k, word in enumerate(said):
            matching = [option for option in options if option[1][k : k + 1] == [word]]
            is_open = len(matching) < len(options)
            agreeing = [reading for reading in truths if reading[1][k : k + 1] == [word]]
            self._write(word, FILLER if not is_open else VISUAL if agreeing else CONTRADICTORY)
            options, truths = matching, agreeing or [(true, words_for(true)) for true in self._intended]
        ended = [values for values, words in options if len(words) == len(said)]
        # Whatever follows rules out the values whose wording would have gone on.
        self._pending = self._pending or len(ended) < len(options)
        self._truths = [true for true, _ in truths]
        for k, fact in enumerate(facts):
            left = {values[k] for values in ended}
            self._open[fact] = [value for value in self._open[fact] if value in left]
        if len(ended) < prod(len(self._open[fact]) for fact in facts):
            raise ValueError(f"{said} leaves combinations of {list(facts)} open that depend on one another: {ended}")

    def ask(self, fact: Fact, question: Callable[[Any], bool]) -> bool:
        """Branch on a fact. If the answer was open, the next word gives it away, whatever that word is."""
        answer = question(self._told[fact])
        self._pending = self.restrict(fact, lambda value: question(value) == answer) or self._pending
        return answer

    def restrict(self, fact: Fact, holds: Callable[[Any], bool]) -> bool:
        """Keep the open values for which `holds`, as the text implies it; return whether that rules out any."""
        before = self._open[fact]
        self._open[fact] = [value for value in before if holds(value)]
        return len(self._open[fact]) < len(before)

    def rule_out(self, fact: Fact, value: Any) -> None:
        """Record that `fact` cannot have `value` (two groups never share a colour)."""
        self.restrict(fact, lambda other: other != value)

    def value(self, fact: Fact) -> Any:
        """Return the told value of `fact`, which the text must have stated already: else the phrasing would leak it.

        Raises:
            ValueError: the text leaves more than one value open.
        """
        if not self.is_known(fact):
            raise ValueError(f"{fact} is used before the text has stated it: {self.text!r}")
        return self._told[fact]

    def is_known(self, fact: Fact) -> bool:
        """Return whether the text so far leaves only one value open."""
        return len(self._open[fact]) == 1

    def values(self, fact: Fact) -> Sequence[Any]:
        """Return the values that the text so far leaves open."""
        return self._open[fact]

    def begin(self) -> None:
        """Begin a new text of which everything said so far is known."""
        self.text, self.spans = "", []
        self._glued = self._sentence_starts = True

    def _write(self, word: str, label: str) -> None:
        body = word.rstrip("".join(PUNCTUATION))
        for piece in filter(None, (body, *word[len(body) :])):
            if piece == GLUE:
                self._glued = True
            elif piece == LINE:
                self.text += "\n"
                self._glued = self._sentence_starts = True
            elif spelt := self._spelling(piece, self._sentence_starts):
                self._write_piece(piece, spelt, VISUAL if self._pending and label == FILLER else label)
                self._pending, label = False, FILLER

    def _write_piece(self, piece: str, spelt: str, label: str) -> None:
        space = "" if self._glued or piece in CLOSING else " "
        start = len((self.text + space).encode())
        self.text += space + spelt
        self.spans.append(Span(start, start + len(spelt.encode()), label))
        self._glued = piece in OPENING
        self._sentence_starts = piece in ".!?" or (self._sentence_starts and piece in OPENING)
