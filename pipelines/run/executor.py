"""The protocol of what runs units. An executor manages processes and devices; ``score_unit`` does a unit's work."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from pipelines.output.commit import PublishedShard, UnitMarker
from pipelines.output.plan import ShardPlan, Unit
from pipelines.run.score_unit import UnitWork


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of a run.

    Attributes:
        encoders: number of workers that read and encode, at the moment.
        scorers: number of workers that hold the model and write.
        shared: whether both are the same workers.
        alive: number of scorers that have loaded the model; the others are loading, waiting for a place, or gone.
        mean_encoders: number of encoders on average, so far; None if it does not change.
    """

    encoders: int
    scorers: int
    shared: bool
    alive: int
    mean_encoders: float | None = None


class Executor(Protocol):
    """Runs units somewhere. Nothing starts before the first call."""

    @property
    def workers(self) -> Workers | None:
        """The current workers; None before any have started."""
        ...

    def score(self, work: UnitWork, units: Sequence[Unit]) -> Generator[UnitMarker, None, None]:
        """Score and commit every unit, and yield each marker when its unit is committed, in any order.

        Closing the generator ends what still works for it.
        """
        ...

    def publish(self, work: UnitWork, planned: ShardPlan) -> Future[PublishedShard]:
        """Publish a shard whose units are all committed."""
        ...
