"""Foreign text with what would not be seen, or would move other text, spelled out."""

from __future__ import annotations

import unicodedata
from typing import Final

_BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """Spell out control characters and bidirectional marks, which could disguise text on a terminal."""
    return "".join(_spelled(char) if _is_control(char) else char for char in text)


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in _BIDI


def _spelled(char: str) -> str:
    return "↵" if char == "\n" else "⇥" if char == "\t" else f"\\u{ord(char):04x}"
