"""``_compacted.json``: shards whose units :mod:`pipelines.output.compaction` has removed since.

A process that has still been at such a unit must not publish the shard from what it has left.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from pipelines.output.commit import PublishedShard, read_published
from pipelines.output.plan import ShardPlan
from pipelines.output.store import Store

KEY: Final = "_compacted.json"


def read_compacted(store: Store) -> frozenset[str]:
    """Keys of the shards whose units were compacted away."""
    try:
        return frozenset(json.loads(store.get(KEY))["shards"])
    except FileNotFoundError:
        return frozenset()


def published_before(store: Store, planned: ShardPlan) -> PublishedShard | None:
    """The shard as it was published, if its units were compacted away since and the file is whole; None otherwise."""
    if planned.key not in read_compacted(store):
        return None
    try:
        shard = read_published(store, planned)
        digest = hashlib.sha256(store.get(shard.name)).hexdigest()
    except FileNotFoundError:
        return None
    return shard if digest == shard.sha256 else None
