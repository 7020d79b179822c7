"""What a text has told about a scene so far; from this follows what each next word is worth.

A caption is written by a `CaptionWriter`. It holds, for every fact about the scene, the values that the text so far
leaves open. Saying a word that depends on a fact compares what would be said under each open value::

    open values of "layout":   right of      left of       below
    wording:                   to the right  to the left   below
    word 0 (said "to"):        to            to            below     differs: visual; "below" is ruled out
    word 1 (said "the"):       the           the                     same: filler
    word 2 (said "left"):      right         left                    differs: visual; the layout is known

So a word is `visual` exactly where the picture changes what could stand there given the text before it. Free choices
of phrasing must not depend on the scene; then they are `filler`, however hard to predict.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VISUAL, FILLER, CONTRADICTORY = "visual", "filler", "contradictory"

Fact = tuple[str, int]
"""What is told, and of which group (by order of mention; 0 for facts about the whole scene)."""

Facts = Mapping[Fact, Any]

PUNCTUATION = frozenset(".,:;!")


@dataclass(frozen=True, slots=True)
class Span:
    """A word or punctuation mark by its half-open range of UTF-8 bytes in the text, with its label."""

    start: int
    end: int
    label: str


class CaptionWriter:
    """Writes words and labels each by the information the picture has about it.

    `told` are the facts as the text states them, `true` the facts of the picture (they differ where an error is
    planted), `possible` the values each fact may take before anything is said.
    """

    def __init__(self, told: Facts, true: Facts, possible: Mapping[Fact, Sequence[Any]]) -> None:
        self._told, self._true = told, true
        self._open: dict[Fact, list[Any]] = {fact: list(values) for fact, values in possible.items()}
        self._pending = False
        self._sentence_starts = True
        self.text = ""
        self.spans: list[Span] = []

    def say(self, words: str) -> None:
        """Say fixed words; only the first can be visual, where it answers an open `ask`."""
        for word in words.split():
            self._write(word, FILLER)

    def tell(self, fact: Fact, wording: Callable[[Any], str]) -> None:
        """Say the words that `wording` gives for the told value of `fact`, and narrow what is open by each."""
        true_words = wording(self._true[fact]).split()
        for k, word in enumerate(wording(self._told[fact]).split()):
            options = {value: wording(value).split()[k : k + 1] for value in self._open[fact]}
            is_open = any(option != [word] for option in options.values())
            self._open[fact] = [value for value, option in options.items() if option == [word]]
            agrees = true_words[k : k + 1] == [word]
            self._write(word, FILLER if not is_open else VISUAL if agrees else CONTRADICTORY)

    def ask(self, fact: Fact, question: Callable[[Any], bool]) -> bool:
        """Branch on a fact. Where the answer was open, the next word gives it away, whatever that word is."""
        answer = question(self._told[fact])
        still_open = [value for value in self._open[fact] if question(value) == answer]
        self._pending = self._pending or len(still_open) < len(self._open[fact])
        self._open[fact] = still_open
        return answer

    def rule_out(self, fact: Fact, value: Any) -> None:
        """Note that `fact` cannot have `value` (two groups never share a colour)."""
        self._open[fact] = [other for other in self._open[fact] if other != value]

    def value(self, fact: Fact) -> Any:
        """The told value of `fact`; only for facts the text has told already, else the phrasing would leak it."""
        if not self.is_known(fact):
            raise ValueError(f"{fact} is used before the text has told it: {self.text!r}")
        return self._told[fact]

    def is_known(self, fact: Fact) -> bool:
        """Whether the text so far leaves one value only."""
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
