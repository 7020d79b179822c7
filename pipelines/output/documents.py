"""Write the small documents beside the published files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def as_json(document: Mapping[str, Any]) -> bytes:
    """Serialize a document as JSON that people can read too."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def now() -> str:
    """Return the current time as documents record it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
