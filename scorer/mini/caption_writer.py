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
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VISUAL, FILLER, CONTRADICTORY = "visual", "filler", "contradictory"

Fact = tuple[str, int]
"""A kind of fact, and the group it is about (in order of mention; 0 for facts about the whole scene)."""

Facts = Mapping[Fact, Any]

PUNCTUATION = frozenset(".,:;!")


@dataclass(frozen=True, slots=True)
class Span:
    """A word or punctuation mark: its half-open range of UTF-8 bytes in the text, and its label."""

    start: int
    end: int
    label: str


class CaptionWriter:
    """Write words, and label each by the information that the image has about it.

    `told` are the facts as the text states them, `true` the facts of the image (they differ if an error is planted),
    `possible` the values that each fact may take before anything is said.
    """

    def __init__(self, told: Facts, true: Facts, possible: Mapping[Fact, Sequence[Any]]) -> None:
        self._told, self._true = told, true
        self._open: dict[Fact, list[Any]] = {fact: list(values) for fact, values in possible.items()}
        self._pending = False
        self._sentence_starts = True
        self.text = ""
        self.spans: list[Span] = []

    def say(self, words: str) -> None:
        """Say fixed words; only the first can be visual, if it answers an open `ask`."""
        for word in words.split():
            self._write(word, FILLER)

    def tell(self, fact: Fact, wording: Callable[[Any], str]) -> None:
        """Say the wording of `fact`'s told value, and narrow down its open values with each word."""
        true_words = wording(self._true[fact]).split()
        for k, word in enumerate(wording(self._told[fact]).split()):
            options = {value: wording(value).split()[k : k + 1] for value in self._open[fact]}
            is_open = any(option != [word] for option in options.values())
            self._open[fact] = [value for value, option in options.items() if option == [word]]
            agrees = true_words[k : k + 1] == [word]
            self._write(word, FILLER if not is_open else VISUAL if agrees else CONTRADICTORY)

    def ask(self, fact: Fact, question: Callable[[Any], bool]) -> bool:
        """Branch on a fact. If the answer was open, the next word gives it away, whatever that word is."""
        answer = question(self._told[fact])
        still_open = [value for value in self._open[fact] if question(value) == answer]
        self._pending = self._pending or len(still_open) < len(self._open[fact])
        self._open[fact] = still_open
        return answer

    def rule_out(self, fact: Fact, value: Any) -> None:
        """Record that `fact` cannot have `value` (two groups never share a colour)."""
        self._open[fact] = [other for other in self._open[fact] if other != value]

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

    def _write(self, word: str, label: str) -> None:
        body = word.rstrip("".join(PUNCTUATION))
        for piece in filter(None, (body, *word[len(body) :])):
            self._write_piece(piece, VISUAL if self._pending and label == FILLER else label)
            self._pending, label = False, FILLER

    def _write_piece(self, piece: str, label: str) -> None:
        if self._sentence_starts:
            piece = piece[0].upper() + piece[1:]
        space = "" if not self.text or piece in PUNCTUATION else " "
        start = len((self.text + space).encode())
        self.text += space + piece
        self.spans.append(Span(start, start + len(piece.encode()), label))
        self._sentence_starts = piece == "."
