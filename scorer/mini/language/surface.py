"""Spell a caption's words as people do: any case, loose punctuation, typing errors."""

import random
from dataclasses import dataclass

from scorer.mini.language.caption_writer import PUNCTUATION, in_sentence_case

SENTENCE, LOWER, UPPER, TITLE = "sentence", "lower", "upper", "title"
CASES = (*[SENTENCE] * 10, *[LOWER] * 5, UPPER, TITLE)
DROPPED = (*[0.0] * 9, 0.3, 1.0)
"""Shares of punctuation marks that are left out."""
TYPOS = (*[0.0] * 14, 0.05, 0.15)
"""Shares of longer words with a typing error."""


@dataclass(frozen=True, slots=True)
class Surface:
    """The spelling of one caption; :meth:`spell` is a `caption_writer.Spelling`."""

    rng: random.Random
    case: str = SENTENCE
    dropped: float = 0.0
    typos: float = 0.0

    def spell(self, piece: str, starts: bool) -> str:
        if self.dropped and piece in PUNCTUATION:
            return "" if self.rng.random() < self.dropped else piece
        if self.typos and len(piece) > 3 and piece.isalpha() and self.rng.random() < self.typos:
            piece = mistyped(piece, self.rng)
        if self.case == UPPER:
            return piece.upper()
        if self.case == TITLE:
            return piece[0].upper() + piece[1:]
        return in_sentence_case(piece, starts and self.case == SENTENCE)


def any_surface(rng: random.Random) -> Surface:
    """Draw a way of spelling; most captions have no error."""
    return Surface(rng, rng.choice(CASES), rng.choice(DROPPED), rng.choice(TYPOS))


def mistyped(word: str, rng: random.Random) -> str:
    """Return `word`, of two letters or more, with two letters swapped, or one left out, doubled or replaced."""
    k = rng.randrange(len(word) - 1)
    kind = rng.choice(("swap", "drop", "double", "replace"))
    if kind == "swap":
        return word[:k] + word[k + 1] + word[k] + word[k + 2 :]
    middle = {"drop": "", "double": word[k] * 2, "replace": rng.choice("abcdefghijklmnopqrstuvwxyz")}[kind]
    return word[:k] + middle + word[k + 1 :]
