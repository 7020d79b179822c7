"""Split scored texts into words, and match tokens to them by byte spans."""

from __future__ import annotations

import re
from collections import defaultdict
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
class WordSpan:
    """A word and its half-open UTF-8 byte span in the text."""

    text: str
    start: int
    end: int


def word_spans(text: str, starts: Int32Array, ends: Int32Array) -> list[WordSpan]:
    """Return the words of ``text`` in order; the arguments are those of :func:`token_runs`.

    In scripts without spaces, a token run counts as a word.
    """
    to_byte = char_to_byte(text)
    found: list[WordSpan] = []
    for match in _WORD.finditer(text):
        begin, stop = int(to_byte[match.start()]), int(to_byte[match.end()])
        if match["unspaced"]:
            found += _token_words(match[0], begin, starts, ends)
        else:
            found.append(WordSpan(match[0], begin, stop))
    return found


def words(text: str, starts: Int32Array, ends: Int32Array) -> list[Word]:
    """Return the scored words of ``text``, each with its tokens. The arguments are those of :func:`token_runs`.

    A token belongs to the word that contains most of its bytes, or the earlier word on a tie. A leading space belongs
    to no word.
    """
    spans = word_spans(text, starts, ends)
    owners: defaultdict[int, list[int]] = defaultdict(list)
    begins = np.array([span.start for span in spans], dtype=np.int64)
    stops = np.array([span.end for span in spans], dtype=np.int64)
    for token, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if not spans:
            break
        shared = np.minimum(stops, end) - np.maximum(begins, start)
        best = int(np.argmax(shared))
        if shared[best] > 0:
            owners[best].append(token)
    return [Word(spans[index].text, tuple(owners[index])) for index in sorted(owners)]


def _token_words(text: str, begin: int, starts: Int32Array, ends: Int32Array) -> list[WordSpan]:
    """Return every token run in a stretch of text without spaces that begins at byte ``begin``."""
    stop = begin + len(text.encode("utf-8"))
    inside = (starts < stop) & (ends > begin)
    own_starts = np.clip(starts[inside] - begin, 0, stop - begin)
    own_ends = np.clip(ends[inside] - begin, 0, stop - begin)
    result: list[WordSpan] = []
    at = begin
    for run in token_runs(text, own_starts, own_ends):
        end = at + len(run.text.encode("utf-8"))
        result.append(WordSpan(run.text, at, end))
        at = end
    return result
