"""The actor that holds the model on a Ray cluster: it pulls a unit's rows from its encoders, scores and commits."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Final

from pipelines.executors.balance import Balance, Rates
from pipelines.executors.feeder import Feeder, UnitSpentError
from pipelines.executors.isolation.heartbeat import Heartbeat, WatchedScorer, end_process_on_hang
from pipelines.executors.loading import Loaded
from pipelines.executors.ray_encoders import RayEncoders
from pipelines.executors.resources import Allocation
from pipelines.output import attempts
from pipelines.output.plan import Unit
from pipelines.run.score_unit import UnitWork

CALLS: Final = 3
"""Units in progress in an actor: one being scored, one encoded ahead, one being committed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an actor says of a unit, and of its encoders.

    Attributes:
        marker: of the committed unit; None for a unit to be isolated, and from an actor that is ready.
        encoders: how many it has.
        mean_encoders: how many it has had on average; None before the first one was there.
        rates: what their number follows from; None before the first row.
    """

    marker: bytes | None
    encoders: int
    mean_encoders: float | None
    rates: Rates | None


class ScoreActor:
    """A unit → its marker. Called by several threads: one scores, while others wait for storage or for their turn."""

    def __init__(self, work: UnitWork, allocation: Allocation, bytes_ahead: int) -> None:
        # Pixels are mapped from the object store, which nobody can write to; nor does the model.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        self._work = work
        # Encoders load beside the model.
        self._feeder = Feeder(
            RayEncoders(work, allocation.cpus_per_encoder),
            Balance(allocation.encoders, allocation.most_encoders),
            lambda unit: self._begin_encoding(unit),
            bytes_ahead,
        )
        heartbeat = Heartbeat(work.row_timeout)
        self._scorer = Loaded(lambda: WatchedScorer(work.engine.scorer(), heartbeat))
        end_process_on_hang(heartbeat)

    def ready(self) -> Answer:
        """Answer when the model is loaded. Raise what loading raised."""
        self._scorer.get()
        return self._answer(None)

    def score(self, unit: Unit) -> Answer:
        """Encode, score and commit a unit."""
        if not self._begin_encoding(unit):
            return self._answer(None)
        with self._feeder.turn(unit) as rows:
            # The attempt begins when it is the unit's turn, so a crash does not count against one that only waits.
            attempt = attempts.begin(self._work.store, unit, "score", self._work.session)
            if attempt is None:
                return self._answer(None)
            try:
                scored = self._work.score(unit, rows, self._scorer.get(), attempt.cut)
            except UnitSpentError:
                return self._answer(None)
        self._feeder.scored(unit.rows, scored.stages["score"])
        return self._answer(self._work.commit(unit, scored).to_bytes())

    def _begin_encoding(self, unit: Unit) -> bool:
        return attempts.begin(self._work.store, unit, "encode", self._work.session) is not None

    def _answer(self, marker: bytes | None) -> Answer:
        feeder = self._feeder
        return Answer(marker, feeder.encoders, feeder.mean_encoders, feeder.balance.rates)
