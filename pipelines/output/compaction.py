"""Compaction: what a finished run kept to be able to go on, once its published files stand on their own.

A published shard with its marker holds all that its units hold. Their files (as large as the published ones together),
their markers and their attempts' records may therefore go, in this order:

1. every published file is checked whole, content against digest: it is the only copy from now on;
2. ``_compacted.json`` gets the shards' keys;
3. markers, then records, then unit files are deleted.

A rerun goes by the published shards' markers and has nothing to score, as before. A process that has still been at a
unit of such a shard, from before step 3, finds the shard's key in ``_compacted.json`` when it comes to publish it and
leaves the published file alone, so that whatever it committed since is read by nobody. What is lost is the way to
publish a shard again without scoring it: if a published file is destroyed later, a rerun scores that shard anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pipelines.output.attempts import ATTEMPTS
from pipelines.output.check import check
from pipelines.output.commit import COMMITS, UNITS, PublishedShard, read_published
from pipelines.output.contents import Output, Problem
from pipelines.output.documents import as_json
from pipelines.output.objects import remove
from pipelines.output.plan import ShardPlan
from pipelines.output.store import Store
from scorer.errors import RunError

KEY: Final = "_compacted.json"
"""Keys of the shards whose units were removed."""

_PREFIXES: Final = (COMMITS, ATTEMPTS, UNITS)


@dataclass(frozen=True, slots=True)
class Superseded:
    """What compaction would delete, in the order of deletion, and the keys of the shards that it belonged to."""

    keys: tuple[str, ...]
    bytes: int
    stems: frozenset[str]


def superseded(output: Output) -> Superseded:
    """What the published shards of a finished run have made superfluous.

    Raises:
        RunError: the run is not finished.
    """
    if output.state != "finished":
        raise RunError(
            f"output {output.store.root} is not finished, and a run that goes on reads its units; give the run's "
            "command again, then compact"
        )
    stems = frozenset(output.stems.values())
    keys = [key for prefix in _PREFIXES for key in sorted(output.sizes) if _belongs(key, prefix, stems)]
    return Superseded(tuple(keys), sum(output.sizes[key] for key in keys), stems)


def compact(output: Output) -> Superseded:
    """Check the output, then delete what is superseded. Returns what went.

    Raises:
        RunError: the run is not finished, or a published file is not what was published.
    """
    found = superseded(output)
    if not found.keys:
        return found
    problems: list[Problem] = list(check(output, lambda _: None))
    if problems:
        first = problems[0]
        raise RunError(
            f"output {output.store.root} has {len(problems)} problems, the first is {first.key}: {first.message}. "
            "Nothing is deleted while units may be needed to mend it"
        )
    stems = sorted(found.stems | read_compacted(output.store))
    output.store.put(KEY, as_json({"shards": stems}))
    remove(output.store.root, found.keys)
    return found


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


def _belongs(key: str, prefix: str, stems: Iterable[str]) -> bool:
    """Whether ``<prefix><name>-<content>-<start>-<stop>.…`` is of one of these shards."""
    if not key.startswith(prefix):
        return False
    name, content, *_ = [*key.removeprefix(prefix).split("-"), ""]
    return f"{name}-{content}" in stems
