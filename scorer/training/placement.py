"""Locate texts in a trainer's labelled tokens by their bytes alone.

A trainer renders a conversation with its own template, tokenizes it, and masks everything that is not trained on. This
leaves *segments*: runs of labelled tokens without special tokens. Each text is located in them byte by byte. The only
assumption about the template is that it writes every text once, in order, and changes nothing but white space at the
ends of a text. A placement counts only if it is the only one possible.

    labels     -100 -100  A  ·red  ·kite  <end>  -100  -100  Two  <end>        · is a space
    segments             [A  ·red  ·kite]                    [Two]
    texts                 0                                   1
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from scorer.errors import SpanError
from scorer.spans import char_to_byte
from scorer.types import Int64Array


class NotPlacedError(SpanError):
    """A text has no place in the segments, or more than one; the message continues the words "a text"."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text to search for.

    Attributes:
        lead, core, tail: its bytes; ``lead`` and ``tail`` are the white space at its ends.
        edges: None, or, if the tokenizer normalises the text (NFC), int64 [2, bytes + 1]: for each byte boundary of
            the normalised text, the last boundary of the original text at or before it, and the first at or after it.
    """

    lead: bytes
    core: bytes
    tail: bytes
    edges: Int64Array | None = None

    @classmethod
    def of(cls, text: str, edges: Int64Array | None = None) -> Text:
        core = text.strip()
        start = text.index(core)
        return cls(text[:start].encode(), core.encode(), text[start + len(core) :].encode(), edges)

    @classmethod
    def normalized(cls, text: str) -> Text:
        """Return the text as a tokenizer that normalises to NFC (Qwen's) sees it."""
        if unicodedata.is_normalized("NFC", text):
            return cls.of(text)
        source, low, high = char_to_byte(text), [0], [0]
        starts = _independent(text)
        for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
            size = len(unicodedata.normalize("NFC", text[start:end]).encode())
            low += [int(source[start])] * (size - 1) + [int(source[end])]
            high += [int(source[end])] * size
        return cls.of(unicodedata.normalize("NFC", text), np.array([low, high]))


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes ``at`` to ``at + size`` of a segment are the text's bytes from ``start`` on."""

    segment: int
    at: int
    start: int
    size: int


def place(
    texts: Sequence[Text],
    segments: Sequence[bytes],
    *,
    cut: bool,
    open_end: bool,
    headers: Collection[bytes] = (),
) -> list[Place | None]:
    """Return the place of every text; None for a blank text, and for one that was cut off.

    Args:
        texts: in the order in which they must occur; blank ones have no place.
        segments: see the module's docstring.
        cut: whether the sequence was truncated: its last texts may be absent, and one may break off at the very end.
        open_end: whether the last segment reaches the end of the sequence, and a text may break off in it.
        headers: what the template writes before a text and is labelled, without white space at its ends. What is left
            of a truncated sequence must be one of them, or begin one; otherwise another text stands there, and texts
            are not taken for cut off because they are not found.

    Raises:
        NotPlacedError: there is no way to place them, or more than one.
    """
    wanted = [i for i, text in enumerate(texts) if text.core]
    for count in range(len(wanted), -1 if cut else len(wanted) - 1, -1):
        whole = [texts[i] for i in wanted[:count]]
        broken = _broken(texts[wanted[count]], segments) if count < len(wanted) and open_end else None
        found = _unique(whole, segments if broken is None else segments[:-1])
        if found is None:
            continue
        known = {*headers, *headers_of(found, segments)}
        if count < len(wanted) and not _explained(found, broken, segments, open_end, known):
            continue
        places: list[Place | None] = [None] * len(texts)
        for i, one in zip(wanted, [*found, *([broken] if broken else [])], strict=False):
            places[i] = _with_white_space(texts[i], one, segments[one.segment])
        return places
    raise NotPlacedError("is not, or not in this order, in the labelled tokens")


def place_from_end(
    texts: Sequence[Text], segments: Sequence[bytes], *, cut: bool, open_start: bool
) -> list[Place | None]:
    """Return the same for a sequence that was truncated on the left: its first texts may be absent, and one may begin
    in its middle at the very start.

    It is :func:`place` in a mirror. A header is complete or gone, so nothing may be left where an absent text would be.

    Args:
        open_start: whether the first segment begins where the sequence does, and a text may begin in its middle there.
    """
    mirrored = [Text(text.tail[::-1], text.core[::-1], text.lead[::-1]) for text in reversed(texts)]
    backwards = [segment[::-1] for segment in reversed(segments)]
    found = place(mirrored, backwards, cut=cut, open_end=open_start)
    return [
        one
        and Place(
            len(segments) - 1 - one.segment,
            len(segments[len(segments) - 1 - one.segment]) - one.at - one.size,
            len(text.lead) + len(text.core) + len(text.tail) - one.start - one.size,
            one.size,
        )
        for text, one in zip(texts, reversed(found), strict=True)
    ]


def headers_of(places: Sequence[Place | None], segments: Sequence[bytes]) -> set[bytes]:
    """Return what stands before the placed texts in their segments, without white space at its ends, if anything."""
    found = set()
    ends: dict[int, int] = {}
    for one in places:
        if one is not None:
            found.add(segments[one.segment][ends.get(one.segment, 0) : one.at].strip())
            ends[one.segment] = one.at + one.size
    return found - {b""}


def _explained(
    found: Sequence[Place],
    broken: Place | None,
    segments: Sequence[bytes],
    open_end: bool,
    headers: Collection[bytes],
) -> bool:
    """Return whether truncation explains the absent texts: nothing is left in the segments but a header, which may be
    truncated itself if no text begins behind it."""
    first = found[-1].segment + 1 if found else 0
    left = [segment.strip() for segment in segments[first:]]
    if broken is not None:
        before = segments[-1][: broken.at].strip()
        return not any(left[:-1]) and (not before or before in headers)
    if not any(left):
        return True
    return open_end and not any(left[:-1]) and any(header.startswith(left[-1]) for header in headers)


def _unique(texts: Sequence[Text], segments: Sequence[bytes]) -> list[Place] | None:
    """Return the only way to place all texts in order; None if there is none.

    Tries the ends of segments first, where templates put texts; then anywhere.

    Raises:
        NotPlacedError: there are several ways.
    """
    for first, last in ((_ends_from_left, _ends_from_right), (_from_left, _from_right)):
        found = first(texts, segments)
        if found is not None:
            if found != last(texts, segments):
                raise NotPlacedError("occurs in the labelled tokens more than once")
            return found
    return None


def _ends_from_left(texts: Sequence[Text], segments: Sequence[bytes]) -> list[Place] | None:
    found: list[Place] = []
    at = 0
    for text in texts:
        while at < len(segments) and not segments[at].rstrip().endswith(text.core):
            at += 1
        if at == len(segments):
            return None
        found.append(Place(at, len(segments[at].rstrip()) - len(text.core), 0, len(text.core)))
        at += 1
    return found


def _ends_from_right(texts: Sequence[Text], segments: Sequence[bytes]) -> list[Place] | None:
    found = _ends_from_left(texts[::-1], segments[::-1])
    last = len(segments) - 1
    return found and [Place(last - one.segment, one.at, 0, one.size) for one in reversed(found)]


def _from_left(texts: Sequence[Text], segments: Sequence[bytes]) -> list[Place] | None:
    found: list[Place] = []
    segment, floor = 0, 0
    for text in texts:
        while segment < len(segments) and (at := segments[segment].find(text.core, floor)) < 0:
            segment, floor = segment + 1, 0
        if segment == len(segments):
            return None
        found.append(Place(segment, at, 0, len(text.core)))
        floor = at + len(text.core)
    return found


def _from_right(texts: Sequence[Text], segments: Sequence[bytes]) -> list[Place] | None:
    backwards = [Text(b"", text.core[::-1], b"") for text in reversed(texts)]
    found = _from_left(backwards, [segment[::-1] for segment in reversed(segments)])
    last = len(segments) - 1
    return found and [
        Place(last - one.segment, len(segments[last - one.segment]) - one.at - one.size, 0, one.size)
        for one in reversed(found)
    ]


def _broken(text: Text, segments: Sequence[bytes]) -> Place | None:
    """Return the place of a text cut off by the end of the sequence: the longest suffix of the last segment that the
    text starts with."""
    last = segments[-1] if segments else b""
    for at in range(max(0, len(last) - len(text.core) + 1), len(last)):
        if text.core.startswith(last[at:]):
            return Place(len(segments) - 1, at, 0, len(last) - at)
    return None


def _with_white_space(text: Text, found: Place, segment: bytes) -> Place:
    """Extend the place by as much of the white space at the text's ends as the template kept."""
    before = _common(segment[: found.at][::-1], text.lead[::-1])
    after = _common(segment[found.at + found.size :], text.tail) if found.size == len(text.core) else 0
    return Place(found.segment, found.at - before, len(text.lead) - before, before + found.size + after)


def _common(a: bytes, b: bytes) -> int:
    """Return the length of the common prefix."""
    size = min(len(a), len(b))
    return next((i for i in range(size) if a[i] != b[i]), size)


def _independent(text: str) -> list[int]:
    """Return the characters before which the text can be cut without changing how its parts are normalised."""
    starts: list[int] = []
    for i, char in enumerate(text):
        before = text[starts[-1] : i] if starts else ""
        apart = unicodedata.normalize("NFC", before) + unicodedata.normalize("NFC", char)
        if not starts or (not unicodedata.combining(char) and unicodedata.normalize("NFC", before + char) == apart):
            starts.append(i)
    return starts
