"""Where units run. An executor knows processes and devices; what a unit is, it leaves to ``score_unit``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Protocol

from pipelines.run.commit import PublishedShard, UnitMarker
from pipelines.run.plan import ShardPlan, Unit
from pipelines.run.score_unit import UnitWork


class Executor(Protocol):
    """Runs units somewhere. Nothing starts before the first call."""

    def score(self, work: UnitWork, units: Sequence[Unit]) -> Iterator[UnitMarker]:
        """Score and commit every unit; yields each one's marker as it is committed, in any order."""
        ...

    def publish(self, work: UnitWork, planned: ShardPlan) -> Future[PublishedShard]:
        """Publish a shard of which every unit is committed."""
        ...
