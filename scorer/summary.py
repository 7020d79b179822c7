"""Read the part of a finished run's ``_SUCCESS`` that every reader needs: the published files and their rows."""

from __future__ import annotations

from typing import Any, Final

from scorer.documents import parse_object

SUCCESS: Final = "_SUCCESS"
"""The file written last into an output: the summary of the finished run, as JSON."""


def parse_summary(data: bytes) -> dict[str, Any]:
    """Parse a summary, whose ``shards`` each have a ``name`` and a number of ``rows``.

    Raises:
        ValueError: the data is incomplete, or another program wrote it (Spark leaves an empty file of this name).
    """
    summary = parse_object(data)
    if not isinstance(summary.get("shards"), list):
        raise ValueError("it has no list of shards")
    for shard in summary["shards"]:
        if not (isinstance(shard, dict) and isinstance(shard.get("name"), str) and isinstance(shard.get("rows"), int)):
            raise ValueError(f"its shard {shard!r:.80} lacks a name or a number of rows")
    return summary
