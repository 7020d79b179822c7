"""What bytes a token's string stands for, by the two alphabets in which vocabularies spell arbitrary text."""

from __future__ import annotations

import re
from typing import Final

_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-F]{2})>")
"""Upper case only: so SentencePiece and tokenizers write a byte's token (``<0x%02X>``). ``<0x0a>`` is plain text."""
_META_SPACE: Final = "\u2581"  # SentencePiece writes a space as this character


def _byte_alphabet() -> dict[int, int]:
    """Code point → byte of byte-level BPE (GPT-2): printable Latin-1 stands for itself, the rest moves to U+0100 on.

    Latin-1 that is not in the alphabet goes to U+FFFF, which no byte encodes.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = [byte for byte in range(256) if byte not in printable]
    return dict.fromkeys(moved, 0xFFFF) | {256 + i: byte for i, byte in enumerate(moved)}


_BYTE_LEVEL: Final = _byte_alphabet()


def byte_level_bytes(token: str) -> bytes | None:
    """The bytes of a byte-level token; None if it holds a character outside that alphabet."""
    try:
        return token.translate(_BYTE_LEVEL).encode("latin-1")
    except UnicodeEncodeError:
        return None


def is_byte_token(token: str) -> bool:
    """Whether a SentencePiece token stands for one byte: ``<0x0A>``."""
    return _BYTE_TOKEN.fullmatch(token) is not None


def sentencepiece_bytes(token: str) -> bytes:
    """The bytes of a SentencePiece token. (A text may spell ``<0x41>`` itself: then they are not the text's.)"""
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(_META_SPACE, " ").encode("utf-8")
