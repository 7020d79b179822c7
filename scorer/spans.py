"""Byte spans: where in a text each token stands, whatever the tokenizer. Pure numpy.

Tokens of two tokenizers meet in the text's UTF-8 bytes and nowhere else. :func:`token_byte_spans` finds the exact
bytes of one tokenizer's tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from scorer.errors import SpanError
from scorer.types import Int32Array, Int64Array

_BYTE_PIECE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_META_SPACE: Final = "\u2581"  # SentencePiece writes a space as this character

Offset = tuple[int, int]


def char_to_byte(text: str) -> Int64Array:
    """int64 [len(text) + 1]: the UTF-8 byte at which each character starts; the last element is the byte length."""
    code_points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    width = 1 + (code_points >= 0x80).astype(np.int64) + (code_points >= 0x800) + (code_points >= 0x10000)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(width)])


def token_byte_spans(text: str, tokens: Sequence[str], offsets: Sequence[Offset]) -> tuple[Int32Array, Int32Array]:
    """The half-open UTF-8 byte span of every token in ``text``.

    A fast tokenizer reports offsets in characters, so the pieces of one multi-byte character all claim the whole
    character, and byte-level tokenizers may trim the space that a token carries. Two steps, the first that applies:

    1. Lossless: the bytes that the token strings stand for (byte-level alphabet, or SentencePiece with byte
       fallback), put end to end, are the text. Then the spans partition the text exactly.
    2. Otherwise (lower-casing, Unicode normalisation, unknown tokens): the reported offsets; where two tokens claim
       the same bytes, the first takes as many as its own string stands for.

    Tokens that stand for no text ([CLS], end of sequence, a SentencePiece dummy prefix) have empty spans.

    Args:
        text: the text that was tokenized; valid Unicode.
        tokens: N token strings as the vocabulary spells them (``Encoding.tokens``).
        offsets: N (start, end) pairs in characters of ``text`` (``Encoding.offsets``); (0, 0) marks a special token.

    Returns:
        int32 [N] starts and int32 [N] ends, both non-decreasing, 0 ≤ start ≤ end ≤ bytes of ``text``; no two spans
        share a byte.

    Raises:
        SpanError: tokens and offsets differ in number, or offsets leave the text or run backwards.
    """
    _check_offsets(text, tokens, offsets)
    data = text.encode("utf-8")
    sources = [text[start:end] for start, end in offsets]
    special = [offset == (0, 0) and not _is_spaces(token) for token, offset in zip(tokens, offsets, strict=True)]
    for lengths_of in (_byte_level_lengths, _sentencepiece_lengths):
        for silent in ([False] * len(tokens), special):
            lengths = lengths_of(data, tokens, sources, silent)
            if lengths is not None:
                ends = np.cumsum(lengths, dtype=np.int64)
                return (ends - lengths).astype(np.int32), ends.astype(np.int32)
    return _spans_from_offsets(text, data, tokens, offsets)


def _check_offsets(text: str, tokens: Sequence[str], offsets: Sequence[Offset]) -> None:
    if len(tokens) != len(offsets):
        raise SpanError(f"{len(tokens)} tokens came with {len(offsets)} offsets; give one (start, end) per token")
    last = 0
    for i, (start, end) in enumerate(offsets):
        if not 0 <= start <= end <= len(text):
            raise SpanError(
                f"token {i} ({tokens[i]!r}) has offsets ({start}, {end}) in a text of {len(text)} characters; "
                "0 ≤ start ≤ end ≤ length must hold: give the text that was tokenized"
            )
        if (start, end) != (0, 0):
            if start < last:
                raise SpanError(f"token {i} ({tokens[i]!r}) starts at character {start}, before its predecessor")
            last = start


def _is_spaces(token: str) -> bool:
    """Whether a token is spaces alone, which trimmed offsets show at (0, 0) as if it were special."""
    return token.strip(" \u0120" + _META_SPACE) == ""  # U+0120 is the space of byte-level BPE


def _byte_alphabet() -> dict[str, int]:
    """Character → byte of byte-level BPE (GPT-2): printable Latin-1 stands for itself, the rest moves to U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = (byte for byte in range(256) if byte not in printable)
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + i): byte for i, byte in enumerate(moved)}


_BYTE_LEVEL: Final = _byte_alphabet()


def _byte_level_piece(token: str) -> bytes | None:
    """The bytes of a byte-level token; None if it holds a character outside that alphabet."""
    try:
        return bytes([_BYTE_LEVEL[char] for char in token])
    except KeyError:
        return None


def _sentencepiece_piece(token: str, source: str | None) -> bytes:
    """The bytes of a SentencePiece token. ``source`` is the text under it: a text may spell ``<0x41>`` itself."""
    byte = _BYTE_PIECE.fullmatch(token)
    if byte and source != token:
        return bytes([int(byte[1], 16)])
    return token.replace(_META_SPACE, " ").encode("utf-8")


def _byte_level_lengths(
    data: bytes, tokens: Sequence[str], sources: Sequence[str], silent: Sequence[bool]
) -> Int64Array | None:
    return _lossless_lengths(data, tokens, sources, silent, lambda token, _: _byte_level_piece(token))


def _sentencepiece_lengths(
    data: bytes, tokens: Sequence[str], sources: Sequence[str], silent: Sequence[bool]
) -> Int64Array | None:
    return _lossless_lengths(data, tokens, sources, silent, _sentencepiece_piece)


def _lossless_lengths(
    data: bytes,
    tokens: Sequence[str],
    sources: Sequence[str],
    silent: Sequence[bool],
    piece_of: Callable[[str, str], bytes | None],
) -> Int64Array | None:
    """int64 [N] bytes of each token if the pieces put end to end are ``data``, but for one dummy space in front.

    ``silent`` tokens stand for nothing. None if the pieces are not the text.
    """
    pieces = []
    for token, source, empty in zip(tokens, sources, silent, strict=True):
        piece = b"" if empty else piece_of(token, source)
        if piece is None:
            return None
        pieces.append(piece)
    joined = b"".join(pieces)
    if joined != data and joined != b" " + data:
        return None
    lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
    if len(joined) > len(data):
        lengths[np.flatnonzero(lengths)[0]] -= 1
    return lengths


def _spans_from_offsets(
    text: str, data: bytes, tokens: Sequence[str], offsets: Sequence[Offset]
) -> tuple[Int32Array, Int32Array]:
    """Step 2 of :func:`token_byte_spans`: walk over the offsets, left to right, giving each byte away once."""
    to_byte = char_to_byte(text)
    claimed = [(int(to_byte[start]), int(to_byte[end])) for start, end in offsets]
    starts, ends, cursor = [], [], 0
    for i, (start, end) in enumerate(claimed):
        next_start = claimed[i + 1][0] if i + 1 < len(claimed) and claimed[i + 1][1] > 0 else len(data)
        start, end = max(start, cursor), max(end, cursor)
        found = _find_piece(data, tokens[i], start, cursor)
        if found is not None:
            start = found[0]
            own_end = start + found[1]
            if own_end > end and data[end:own_end].isspace():  # trimmed behind
                end = own_end
        if next_start < end:  # shares bytes with the next token: take this piece's own, leave it the others
            cut = start + (len(_byte_level_piece(tokens[i]) or b" ") if found is None else found[1])
            end = min(end, max(cut, next_start, start))
        elif end > start:
            end = max(end, _end_with_folded(text, offsets, i, to_byte))
        starts.append(start)
        ends.append(end)
        cursor = end
    return np.array(starts, dtype=np.int32), np.array(ends, dtype=np.int32)


def _end_with_folded(text: str, offsets: Sequence[Offset], i: int, to_byte: Int64Array) -> int:
    """The byte after token ``i`` and the unclaimed characters that normalisation folded into it.

    NFC reports a composed letter at its first character alone, and accent stripping reports nothing for the accent:
    their bytes belong to the letter before them.
    """
    start, end = offsets[i]
    limit = offsets[i + 1][0] if i + 1 < len(offsets) and offsets[i + 1][1] > 0 else len(text)
    while start < end < limit and _folds(text[start:end], text[end]):
        end += 1
    return int(to_byte[end])


def _folds(before: str, char: str) -> bool:
    """Whether ``char`` is a combining mark, or composes with what stands before it (Hangul syllables)."""
    if char.isascii():
        return False
    composed = len(unicodedata.normalize("NFC", before + char)) <= len(unicodedata.normalize("NFC", before))
    return composed or unicodedata.category(char).startswith("M")


def _find_piece(data: bytes, token: str, start: int, floor: int) -> tuple[int, int] | None:
    """(start, length) of the token's own bytes at ``start``, or earlier by the spaces it carries; not before floor."""
    byte_level = _byte_level_piece(token)
    pieces = [_sentencepiece_piece(token, None), token.encode("utf-8")]
    for piece in pieces if byte_level is None else [byte_level, *pieces]:
        spaces = len(piece) - len(piece.lstrip(b" "))
        for candidate in (start, start - spaces):
            if candidate >= floor and data.startswith(piece, candidate):
                return candidate, len(piece)
        if spaces and start == 0 and data.startswith(piece[1:]):  # its first space is a dummy prefix
            return 0, len(piece) - 1
    return None
