"""Format sizes, times and names for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from scorer import contrasts


def contrasts_of(run: Mapping[str, Any]) -> str:
    """Name a run's contrasts, given its fingerprint or summary."""
    names = contrasts.of_run(run)
    return f"contrast{'s' if len(names) > 1 else ''} {', '.join(names)}"


def count_of(count: int, noun: str) -> str:
    """Name a number of things: ``1 shard``, ``1,200 shards``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def file_size(count: float) -> str:
    """Format a number of bytes: ``512 B``, ``1.2 kB``, ``34 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float | None) -> str:
    """Format seconds: ``0:07``, ``1:02:03``; a question mark if None."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def ago(time: datetime) -> str:
    """Format the time since then: ``12 s ago``, ``5 min ago``, ``3 h ago``, ``4 days ago``."""
    seconds = max(0.0, (datetime.now(UTC) - time) / timedelta(seconds=1))
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds / 86400:.0f} days ago"


def model_name(model: str | None) -> str:
    """Return a hub id unchanged, or the last three parts of a folder; the fingerprint has the full path."""
    if model is None:
        return "unnamed model"
    parts = model.replace("\\", "/").rstrip("/").split("/")
    return "/".join(parts[-3:])
