"""``_SUCCESS``: what a finished run came to, over all the processes that took part in it.

Keys: ``started_at``, ``finished_at`` (ISO 8601, UTC), ``seconds_scoring`` (working time, pauses left out), ``rows``,
``ok``, ``failed``, ``failures`` (code → ``count`` and at most ten ``examples`` of ``shard``, ``row_index``,
``sample_id``, ``message``), ``tokens``, ``rows_per_second``, ``tokens_per_second``, ``paths`` (rows ok, by how they
were scored: :class:`pipelines.output.tally.Tally`), ``padding_waste`` (the share of padding in the tokens that the
model ran), ``model``, ``method``, ``contrast``, ``dtype``, ``layout``, ``shards`` (``name``, ``rows``, ``ok``,
``failed``, ``bytes``, ``sha256``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipelines.output.commit import SUCCESS, OutputState, PublishedShard, as_json
from pipelines.output.plan import ShardPlan
from pipelines.output.record import RunRecord
from pipelines.output.store import Store
from pipelines.output.tally import total


def now() -> str:
    """The time, as it is written into records."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def summarize(record: RunRecord, shards: Sequence[PublishedShard]) -> dict[str, Any]:
    """The summary of a run whose shards are all published."""
    tally = total(shard.tally for shard in shards)
    seconds = tally.seconds
    summary = {
        "started_at": record.started_at,
        "finished_at": now(),
        "seconds_scoring": seconds,
        "rows": tally.rows,
        "ok": tally.ok,
        "failed": tally.failed,
        "failures": tally.to_dict()["failures"],
        "tokens": tally.tokens,
        "rows_per_second": tally.rows / seconds if seconds else None,
        "tokens_per_second": tally.tokens / seconds if seconds else None,
        "paths": dict(tally.paths),
        "padding_waste": tally.usage.waste,
        "model": record.fingerprint.get("model"),
        "method": dict(record.method),
        "contrast": record.fingerprint.get("contrast"),
        "dtype": record.fingerprint.get("dtype"),
        "layout": record.layout,
        "shards": [_shard(shard) for shard in shards],
    }
    return dict(json.loads(as_json(summary)))  # exactly what a later reader will get


def stored_summary(store: Store, plans: Sequence[ShardPlan], state: OutputState) -> dict[str, Any] | None:
    """The summary that is stored, if every shard of the plan was published since it is what it is, and no other.

    One object is read, however many shards there are.
    """
    try:
        summary: Mapping[str, Any] = json.loads(store.get(SUCCESS))
    except FileNotFoundError:
        return None
    entries = summary["shards"]
    if len(entries) != len(plans):
        return None
    for planned, entry in zip(plans, entries, strict=True):
        same = (entry["name"], entry["rows"]) == (planned.shard.name, planned.shard.rows)
        if not (same and state.is_published(planned) and state.sizes.get(entry["name"]) == entry["bytes"]):
            return None
    return dict(summary)


def read_summary(store: Store, shards: Sequence[PublishedShard]) -> dict[str, Any] | None:
    """The summary that is stored, if it speaks of exactly these shards."""
    try:
        summary: Mapping[str, Any] = json.loads(store.get(SUCCESS))
    except FileNotFoundError:
        return None
    return dict(summary) if summary["shards"] == [_shard(shard) for shard in shards] else None


def _shard(shard: PublishedShard) -> dict[str, Any]:
    return {
        "name": shard.name,
        "rows": shard.tally.rows,
        "ok": shard.tally.ok,
        "failed": shard.tally.failed,
        "bytes": shard.size,
        "sha256": shard.sha256,
    }
