"""Parse small JSON documents that a disk, a copy or a hand may have damaged, and say what is wrong with them.

They hold text only, so a name whose bytes are no UTF-8 is refused before one is written.
"""

from __future__ import annotations

import json
from typing import Any


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in ``data``.

    Raises:
        ValueError: the data is empty, not UTF-8, not JSON, or JSON other than an object; the message begins with "it
            is", so that it can follow the name of a file.
    """
    if not data.strip():
        raise ValueError("it is empty")
    try:
        value = json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"it is {value!r:.40}, not an object")
    return value


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8; one that the system gave may hold other bytes, as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)
