"""``_SUCCESS`` of a finished run, as far as every reader needs it: which files were published, and their rows."""

from __future__ import annotations

import json
from typing import Any, Final

SUCCESS: Final = "_SUCCESS"
"""Written last into an output: the summary of the finished run, as JSON."""


def parse_summary(data: bytes) -> dict[str, Any]:
    """Read a summary; its ``shards`` have a ``name`` and a number of ``rows`` each.

    Raises:
        ValueError: it is torn, or another program's (Spark leaves an empty file of this name).
    """
    summary = json.loads(data)
    if not isinstance(summary, dict) or not isinstance(summary.get("shards"), list):
        raise ValueError("it is not an object with a list of shards")
    for shard in summary["shards"]:
        if not (isinstance(shard, dict) and isinstance(shard.get("name"), str) and isinstance(shard.get("rows"), int)):
            raise ValueError(f"its shard {shard!r:.80} has no name or no number of rows")
    return summary
