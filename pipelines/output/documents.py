"""The small documents beside the published files, as they are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def as_json(document: Mapping[str, Any]) -> bytes:
    """A document as people read it too."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def now() -> str:
    """The time, as it is written into records."""
    return datetime.now(UTC).isoformat(timespec="seconds")
