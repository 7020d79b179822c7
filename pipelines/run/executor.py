"""Where units run. An executor knows processes and devices; what a unit is, it leaves to ``score_unit``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from pipelines.output.commit import PublishedShard, UnitMarker
from pipelines.output.plan import ShardPlan, Unit
from pipelines.run.score_unit import UnitWork


@dataclass(frozen=True, slots=True)
class Workers:
    """Who is at work.

    Attributes:
        encoders: workers that read and encode.
        scorers: workers that hold the model and write.
        shared: the two are the same workers.
        alive: scorers that were heard of lately; the others load, wait, start anew, or are gone.
    """

    encoders: int
    scorers: int
    shared: bool
    alive: int


class Executor(Protocol):
    """Runs units somewhere. Nothing starts before the first call."""

    @property
    def workers(self) -> Workers | None:
        """Who is at work now; None before anyone is."""
        ...

    def score(self, work: UnitWork, units: Sequence[Unit]) -> Iterator[UnitMarker]:
        """Score and commit every unit; yields each one's marker as it is committed, in any order."""
        ...

    def publish(self, work: UnitWork, planned: ShardPlan) -> Future[PublishedShard]:
        """Publish a shard of which every unit is committed."""
        ...
