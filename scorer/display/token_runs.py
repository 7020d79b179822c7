"""Group tokens into the stretches of text that are coloured, by byte span."""

from __future__ import annotations

from dataclasses import dataclass

from scorer.types import Int32Array


@dataclass(frozen=True, slots=True)
class TokenRun:
    """The smallest stretch of text with whole characters and whole tokens, ``first`` to ``last`` (exclusive).

    Usually that is one token. It is several if they share a character (the bytes of an emoji), and none if the text was
    not scored.
    """

    text: str
    first: int
    last: int


def token_runs(text: str, starts: Int32Array, ends: Int32Array) -> list[TokenRun]:
    """Cut ``text`` into runs of tokens whose texts, joined, equal it.

    Args:
        text: one scored turn.
        starts, ends: int32 [N], half-open byte spans of the turn's tokens, non-decreasing.
    """
    data = text.encode("utf-8")
    found: list[TokenRun] = []
    at = first = 0
    while first < len(starts):
        start = min(max(at, int(starts[first])), len(data))
        if start > at and not inside_character(data, start):
            found.append(TokenRun(_decode(data[at:start]), first, first))
            at = start
        last, end = first + 1, max(at, int(ends[first]))
        # A token that has no bytes or ends inside a character is shown together with the next one.
        while last < len(starts) and (end <= at or inside_character(data, end) or int(ends[last]) <= end):
            end = max(end, int(ends[last]))
            last += 1
        while inside_character(data, end):  # the last token of a truncated text
            end += 1
        end = min(end, len(data))
        found.append(TokenRun(_decode(data[at:end]), first, last))
        at, first = end, last
    if at < len(data):
        found.append(TokenRun(_decode(data[at:]), len(starts), len(starts)))
    return found


def inside_character(data: bytes, index: int) -> bool:
    """Return whether ``index`` lies inside a character of UTF-8 text: its byte continues one."""
    return 0 < index < len(data) and data[index] & 0xC0 == 0x80


def _decode(data: bytes) -> str:
    return data.decode("utf-8")
