"""Find, for a caption's word, one that stands in the same place in another caption: no language tools, any script."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from scorer.display.words import WordSpan

MAX_RATIO: Final = 4.0
"""A word is replaced by one that is in at most this many times as many rows, and in at least this share of as many."""
MIN_ROWS: Final = 2
"""Both words are in at least so many rows: a word that occurs once is often a name or a typing error."""


@dataclass(frozen=True, slots=True)
class ScoredText:
    """A scored turn of a row, with its words in order. Equal ``row`` numbers belong to one row."""

    row: int
    turn: int
    text: str
    words: tuple[WordSpan, ...]


@dataclass(frozen=True, slots=True)
class Swap:
    """A word of a text, and the one that takes its place.

    Attributes:
        source: the text.
        at: the word's place among the text's words.
        other: the replacement, in the word's case.
    """

    source: ScoredText
    at: int
    other: str

    @property
    def word(self) -> WordSpan:
        """The word that is replaced."""
        return self.source.words[self.at]

    @property
    def text(self) -> str:
        """The text with the replacement."""
        data = self.source.text.encode()
        return (data[: self.word.start] + self.other.encode() + data[self.word.end :]).decode()


_Place = tuple[str, ...]


class _Places:
    """The words that stand in each place, and in how many rows each word is."""

    def __init__(self, texts: Sequence[ScoredText]) -> None:
        self.rows = Counter(word for _, word in {(one.row, _fold(word)) for one in texts for word in one.words})
        self._seen: defaultdict[tuple[int, _Place], defaultdict[str, set[int]]]
        self._seen = defaultdict(lambda: defaultdict(set))
        for one in texts:
            for at in range(len(one.words)):
                for place in enumerate(_places(one, at)):
                    self._seen[place][_fold(one.words[at])].add(one.row)
        self._ranked = {
            place: sorted((self.rows[word], word) for word in words if self.rows[word] >= MIN_ROWS)
            for place, words in self._seen.items()
        }

    def replacement(self, one: ScoredText, at: int) -> tuple[int, str] | None:
        """Return the level of the narrowest place that has another word in about as many rows, and the nearest of
        them."""
        own = _fold(one.words[at])
        count = self.rows[own]
        if count < MIN_ROWS:
            return None
        for level, place in enumerate(_places(one, at)):
            ranked, seen = self._ranked[level, place], self._seen[level, place]
            middle = bisect_left(ranked, (count, ""))
            above = (ranked[i] for i in range(middle, len(ranked)))
            below = (ranked[i] for i in range(middle - 1, -1, -1))
            found = []
            for candidates in (above, below):
                for rows, other in candidates:
                    if not 1 / MAX_RATIO <= rows / count <= MAX_RATIO:
                        break
                    if other != own and len(seen[other]) > (one.row in seen[other]):
                        found.append((abs(math.log(rows / count)), other))
                        break
            if found:
                return level, min(found)[1]
        return None


def find_swaps(texts: Sequence[ScoredText], seed: int) -> list[Swap]:
    """Return at most one swap for each row, in the order of the rows.

    Two words stand in the same place if the words and punctuation on both sides are equal, up to case; failing that,
    the two words before, the two after, or the one before. The replacement comes from another row, and is in about as
    many rows as the word (:data:`MAX_RATIO`). Of a row's words, those in the narrowest places are candidates, and words
    of few rows are preferred, as content words are.
    """
    found_in = _Places(texts)
    rows = found_in.rows
    total = len({one.row for one in texts})
    rng = np.random.default_rng(seed)
    chosen: dict[int, list[tuple[int, ScoredText, int, str]]] = defaultdict(list)
    for one in texts:
        for at in range(len(one.words)):
            if (replacement := found_in.replacement(one, at)) is not None:
                chosen[one.row].append((replacement[0], one, at, replacement[1]))
    found = []
    for row in sorted(chosen):
        narrowest = min(level for level, *_ in chosen[row])
        options = [option for option in chosen[row] if option[0] == narrowest]
        rare = np.array([math.log(total / rows[_fold(one.words[at])]) for _, one, at, _ in options]) + 1e-6
        _, one, at, other = options[int(rng.choice(len(options), p=rare / rare.sum()))]
        found.append(Swap(one, at, _in_case_of(one.words[at].text, other)))
    return found


def _places(one: ScoredText, at: int) -> Iterator[_Place]:
    """Yield the descriptions of a word's place, the narrowest first."""
    data = one.text.encode()
    words = one.words
    before = "" if at == 0 else _fold(words[at - 1])
    after = "" if at + 1 == len(words) else _fold(words[at + 1])
    left = data[0 if at == 0 else words[at - 1].end : words[at].start].decode()
    right = data[words[at].end : len(data) if at + 1 == len(words) else words[at + 1].start].decode()
    yield before, left, right, after
    yield ("" if at < 2 else _fold(words[at - 2])), before, left
    yield right, after, "" if at + 2 >= len(words) else _fold(words[at + 2])
    yield before, left


def _fold(word: WordSpan) -> str:
    return word.text.casefold()


def _in_case_of(own: str, other: str) -> str:
    """Return the folded word ``other`` written in capitals as ``own`` is."""
    if len(own) > 1 and own.isupper():
        return other.upper()
    return other[:1].upper() + other[1:] if own[:1].isupper() else other
