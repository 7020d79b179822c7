"""Split scored texts into words, and match tokens to them by byte spans."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from scorer.display.token_runs import token_runs
from scorer.spans import char_to_byte
from scorer.types import Int32Array

_UNSPACED: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Scripts written without spaces (Chinese, Japanese, Thai, Lao, Burmese, Khmer): a token run counts as a word."""
_WORD: Final = re.compile(rf"(?P<unspaced>[{_UNSPACED}]+)|(?:(?![{_UNSPACED}])\w)+(?:['’-](?:(?![{_UNSPACED}])\w)+)*")


@dataclass(frozen=True, slots=True)
class Word:
    """A word and the indices of its tokens."""

    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WordGap:
    """A word's gap, averaged over its occurrences."""

    text: str
    count: int
    mean: float


def words(text: str, starts: Int32Array, ends: Int32Array) -> list[Word]:
    """Return the scored words of ``text``, each with its tokens. The arguments are those of :func:`token_runs`.

    A token belongs to the word that contains most of its bytes, or the earlier word on a tie. A leading space belongs
    to no word.
    """
    to_byte = char_to_byte(text)
    spans: list[tuple[int, int, str]] = []
    for match in _WORD.finditer(text):
        begin, stop = int(to_byte[match.start()]), int(to_byte[match.end()])
        if match["unspaced"]:
            spans += _token_words(match[0], begin, starts, ends)
        else:
            spans.append((begin, stop, match[0]))
    found: list[Word] = []
    owners: defaultdict[int, list[int]] = defaultdict(list)
    begins = np.array([span[0] for span in spans], dtype=np.int64)
    stops = np.array([span[1] for span in spans], dtype=np.int64)
    for token, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if not spans:
            break
        shared = np.minimum(stops, end) - np.maximum(begins, start)
        best = int(np.argmax(shared))
        if shared[best] > 0:
            owners[best].append(token)
    for index in sorted(owners):
        found.append(Word(spans[index][2], tuple(owners[index])))
    return found


def mean_gaps(occurrences: Iterable[tuple[str, float]], min_count: int) -> list[WordGap]:
    """Return the case-folded words that occur at least ``min_count`` times, highest mean gap first."""
    gaps: defaultdict[str, list[float]] = defaultdict(list)
    for text, gap in occurrences:
        gaps[text.casefold()].append(gap)
    counted = [WordGap(text, len(seen), float(np.mean(seen))) for text, seen in gaps.items() if len(seen) >= min_count]
    return sorted(counted, key=lambda word: (-word.mean, word.text))


def _token_words(text: str, begin: int, starts: Int32Array, ends: Int32Array) -> Sequence[tuple[int, int, str]]:
    """Return (start byte, end byte, text) of every token run in a stretch of text without spaces."""
    stop = begin + len(text.encode("utf-8"))
    inside = (starts < stop) & (ends > begin)
    own_starts = np.clip(starts[inside] - begin, 0, stop - begin)
    own_ends = np.clip(ends[inside] - begin, 0, stop - begin)
    result: list[tuple[int, int, str]] = []
    at = begin
    for run in token_runs(text, own_starts, own_ends):
        end = at + len(run.text.encode("utf-8"))
        result.append((at, end, run.text))
        at = end
    return result
