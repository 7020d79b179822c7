"""Tell an image in base64 from a path, and from an image's own bytes: as datasets hold it in a string or a binary."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Final

_DATA_URL: Final = re.compile(r"data:[^,]{0,200}?;base64,", re.IGNORECASE)
_LONGEST_DATA_URL_START: Final = 256
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_\-\s]+={0,2}\s*")
_SHORTEST: Final = 64
"""Characters of the smallest image in base64; a shorter string is a path."""
_LONGEST_PATH: Final = 4096
_SNIFFED: Final = 64
_MAGIC: Final = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*"),
    *(b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"\x00\x00\x01\x00"),
)
"""The first bytes of JPEG, PNG, GIF, TIFF, JPEG 2000 (JP2, codestream) and ICO. PPM's and TGA's show too little."""


def find_base64(value: str | bytes, exists: Callable[[str], bool]) -> str | None:
    """Return the base64 of an image that a value is: what follows a data URL's comma, or the plain base64.

    Plain base64 is known by the image's signature that it decodes to. Bytes are base64 by the same signs, which no
    image has as its own bytes: those of base64 are letters, digits and a few marks from start to end.

    Args:
        value: a string, which is else a path or URL, or bytes, which are else an image.
        exists: whether there is a file of this name; a path that exists is never taken for base64. OSError and
            ValueError mean that there is none.

    Returns:
        None if the value is none.
    """
    text = value if isinstance(value, str) else _as_text(value)
    if text is None:
        return None
    url = _DATA_URL.match(text)
    if url is not None:
        return text[url.end() :]
    if len(text) < _SHORTEST or not _has_signature(text) or not _BASE64.fullmatch(text):
        return None
    if isinstance(value, str) and len(text) <= _LONGEST_PATH and _is_file(text, exists):
        return None
    return text


def decode_base64(encoded: str) -> bytes:
    """Decode base64 of either alphabet, with or without white space and padding. Raise ValueError if it is none."""
    data = "".join(encoded.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    return base64.b64decode(data + "=" * (-len(data) % 4), validate=True)


def _as_text(data: bytes) -> str | None:
    """Return bytes as text if their beginning may be base64 or a data URL; an image is not copied for that."""
    start = data[:_LONGEST_DATA_URL_START].decode("latin-1")
    if not (_DATA_URL.match(start) or _has_signature(start)):
        return None
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        return None


def _is_file(text: str, exists: Callable[[str], bool]) -> bool:
    try:
        return exists(text)
    except (OSError, ValueError):
        return False


def _has_signature(text: str) -> bool:
    """Whether base64 decodes to the beginning of an image."""
    try:
        start = decode_base64(text[:_SNIFFED].strip()[: _SNIFFED // 2])
    except (binascii.Error, ValueError):
        return False
    if start.startswith(_MAGIC) or start[4:12] in (b"ftypavif", b"ftypavis"):
        return True
    if start[:4] == b"RIFF":
        return start[8:12] == b"WEBP"
    return start[:2] == b"BM" and start[6:10] == bytes(4)  # a bitmap's reserved field is zero
