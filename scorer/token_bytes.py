"""Convert token strings to bytes, for the two alphabets in which vocabularies spell arbitrary text."""

from __future__ import annotations

import re
from typing import Final

_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-F]{2})>")
"""Upper case only, as SentencePiece and tokenizers write byte tokens (``<0x%02X>``). ``<0x0a>`` is plain text."""
_META_SPACE: Final = "\u2581"  # SentencePiece writes a space as this character


def _byte_alphabet() -> dict[int, int]:
    """Map code points to bytes as in byte-level BPE (GPT-2): printable Latin-1 maps to itself, the rest from U+0100 on.

    Latin-1 characters outside the alphabet map to U+FFFF, which no byte encodes.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = [byte for byte in range(256) if byte not in printable]
    return dict.fromkeys(moved, 0xFFFF) | {256 + i: byte for i, byte in enumerate(moved)}


_BYTE_LEVEL: Final = _byte_alphabet()


def byte_level_bytes(token: str) -> bytes | None:
    """Return the bytes of a byte-level token; None if it contains a character outside the alphabet."""
    try:
        return token.translate(_BYTE_LEVEL).encode("latin-1")
    except UnicodeEncodeError:
        return None


def is_byte_token(token: str) -> bool:
    """Return whether a SentencePiece token represents one byte, as ``<0x0A>`` does."""
    return _BYTE_TOKEN.fullmatch(token) is not None


def sentencepiece_bytes(token: str) -> bytes:
    """Return the bytes of a SentencePiece token. They are not the text's own if the text itself spells ``<0x41>``."""
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(_META_SPACE, " ").encode("utf-8")
