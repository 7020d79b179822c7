"""Delete what a finished run kept only to be able to resume.

A published shard and its marker contain everything that its units contain. The unit files (together as large as the
published ones), their markers and the records of attempts can therefore be deleted, in this order:

1. check the whole content of every published file against its digest: it is the only copy from now on;
2. add the shards' keys to ``_compacted.json``;
3. delete the markers, then the records, then the unit files.

A rerun reads the published shards' markers and has nothing to score, as before. A process that was already working on
a unit of such a shard before step 3 finds the shard's key in ``_compacted.json`` when it is about to publish, and
leaves the published file alone: whatever it has committed since is never read. What is lost is the means to publish a
shard again without scoring it: if a published file is destroyed later, a rerun rescores that shard.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pipelines.output.attempts import ATTEMPTS, ENDED
from pipelines.output.check import check
from pipelines.output.commit import COMMITS, UNITS, PublishedShard, find_published
from pipelines.output.contents import Output, Problem
from pipelines.output.documents import as_json
from pipelines.output.objects import remove
from pipelines.output.plan import ShardPlan
from pipelines.output.reader import is_intact
from pipelines.output.store import Store
from scorer.documents import parse_object
from scorer.errors import RunError

KEY: Final = "_compacted.json"
"""Keys of the shards whose units were removed."""

_PREFIXES: Final = (COMMITS, ATTEMPTS, UNITS)


@dataclass(frozen=True, slots=True)
class Superseded:
    """The objects that compaction deletes, in order of deletion, their size, and the keys of their shards."""

    keys: tuple[str, ...]
    bytes: int
    stems: frozenset[str]


def superseded(output: Output) -> Superseded:
    """Find the objects that the published shards of a finished run have superseded.

    Raises:
        RunError: the run is not finished.
    """
    if output.state != "finished":
        raise RunError(
            f"output {output.store.root} is not finished, and a resumed run reads its units; run the scoring command "
            "again, then compact"
        )
    stems = frozenset(output.stems.values())
    keys = [key for prefix in _PREFIXES for key in sorted(output.sizes) if _belongs(key, prefix, stems)]
    return Superseded(tuple(keys), sum(output.sizes[key] for key in keys), stems)


def compact(output: Output) -> Superseded:
    """Check the output, then delete what is superseded. Return what was deleted.

    Raises:
        RunError: the run is not finished, or the output has problems; then nothing is deleted.
    """
    found = superseded(output)
    if not found.keys:
        return found
    problems: list[Problem] = list(check(output, lambda _: None))
    if problems:
        first = problems[0]
        raise RunError(
            f"output {output.store.root} has {len(problems)} problems, the first is {first.key}: {first.message}. "
            "Nothing is deleted while units may be needed for the repair"
        )
    stems = sorted(found.stems | read_compacted(output.store))
    output.store.put(KEY, as_json({"shards": stems}))
    remove(output.store.root, found.keys)
    return found


def read_compacted(store: Store) -> frozenset[str]:
    """Read the keys of the shards whose units were removed.

    Raises:
        RunError: they cannot be read.
    """
    try:
        document = parse_object(store.get(KEY))
        if not isinstance(document.get("shards"), list) or not all(isinstance(key, str) for key in document["shards"]):
            raise ValueError("it has no list of shards")
        return frozenset(document["shards"])
    except FileNotFoundError:
        return frozenset()
    except ValueError as error:
        raise RunError(
            f"{store.root}/{KEY} cannot be read: {error}; make sure that no other command works on this output, delete "
            "the file and run the same command again"
        ) from error


def published_before(store: Store, planned: ShardPlan) -> PublishedShard | None:
    """Return the published shard if its units have been removed and its file is intact; otherwise None."""
    if planned.key not in read_compacted(store):
        return None
    shard = find_published(store, planned)
    return shard if shard is not None and is_intact(store, shard) else None


def _belongs(key: str, prefix: str, stems: Iterable[str]) -> bool:
    """Whether ``<prefix><name>-<content>-<start>-<stop>.…`` belongs to one of these shards, or is a session's end."""
    if not key.startswith(prefix):
        return False
    if key.startswith(ATTEMPTS) and key.endswith(ENDED):
        return True
    name, content, *_ = [*key.removeprefix(prefix).split("-"), ""]
    return f"{name}-{content}" in stems
