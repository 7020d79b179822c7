"""Run units on a Ray cluster: actors hold the model and pull rows from encoders of their own.

    driver ── units ──► scoring actor (GPU) ── asks for rows, ahead ──► its encoders (CPU)
           ◄─ markers ──     │        ◄── blocks of at most 64 MB ──
                             └─ commits

A unit stays with one actor from start to commit. What is committed is known from the markers alone, so a unit that is
given to another actor is safe, whatever became of the first.

A process that hangs on a row ends itself. Actors and encoders that die are replaced, without limit. The units of an
actor that died are tried one at a time, so that deaths are counted against the unit that causes them, not against its
neighbours. A unit that has used up its attempts is isolated once the actors have ended and the devices are free.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

import ray

from pipelines.executors.feeder import MAX_LOADS
from pipelines.executors.isolation import isolate as isolation
from pipelines.executors.ray_cluster import cluster_size, connect
from pipelines.executors.ray_errors import cause_of_death, is_death, readable_errors, translated
from pipelines.executors.ray_scoring import CALLS, Answer, ScoreActor
from pipelines.executors.resources import ActorOptions, Allocation, allocate
from pipelines.output.commit import PublishedShard, UnitMarker
from pipelines.output.plan import ShardPlan, Unit
from pipelines.run.executor import Workers
from pipelines.run.score_unit import UnitWork
from scorer.errors import RunError

log = logging.getLogger(__name__)

BYTES_AHEAD: Final = 1 << 30
"""Encoded bytes per actor that may wait in the object store before encoding pauses."""


class RayExecutor:
    """See :class:`pipelines.run.executor.Executor`. Joins or starts a cluster on the first call.

    Args:
        options: how many actors to use, and the resources of each.
        address: a cluster's address; None means ``RAY_ADDRESS`` or, if that is not set, a new cluster on this machine.
        bytes_ahead: see :data:`BYTES_AHEAD`.
    """

    def __init__(
        self, options: ActorOptions | None = None, address: str | None = None, bytes_ahead: int = BYTES_AHEAD
    ) -> None:
        self._options = options or ActorOptions()
        self._address = address
        self._bytes_ahead = bytes_ahead
        self._publish: Any = None
        self._crew: _Crew | None = None

    @property
    def workers(self) -> Workers | None:
        return None if self._crew is None else self._crew.workers

    def score(self, work: UnitWork, units: Sequence[Unit]) -> Generator[UnitMarker, None, None]:
        if not units:
            return
        connect(self._address)
        allocation = allocate(cluster_size(), self._options, len(units))
        log.info(
            "%d actors (%g CPU, %g GPU each), with %d to %d encoders each",
            allocation.actors,
            allocation.cpus_per_actor,
            allocation.gpus_per_actor,
            allocation.encoders,
            allocation.most_encoders,
        )
        self._crew = crew = _Crew(work, allocation, self._bytes_ahead)
        spent: list[Unit] = []
        with readable_errors():
            try:
                for unit, marker in crew.score(units):
                    if marker is None:
                        spent.append(unit)
                    else:
                        yield marker
            finally:
                crew.close()
            isolate = ray.remote(num_cpus=allocation.cpus_per_actor, num_gpus=allocation.gpus_per_actor)(_isolate)
            # The processes that these tasks start may die; a task itself dies only with its node, so Ray's few
            # retries are enough.
            waiting = [isolate.remote(work, unit) for unit in spent]
            while waiting:
                done, waiting = ray.wait(waiting)
                yield ray.get(done[0])

    def publish(self, work: UnitWork, planned: ShardPlan) -> Future[PublishedShard]:
        connect(self._address)
        if self._publish is None:
            # Publishing mostly waits for storage and reserves no CPU: the actors may hold all but one of them.
            self._publish = ray.remote(num_cpus=0)(_publish)
        return translated(self._publish.remote(work, planned).future())


@dataclass(eq=False, slots=True)
class _Member:
    """One actor.

    Attributes:
        ready: whether it has loaded the model.
        suspect: whether it was given a unit that must be alone.
        units: those that it was given and has not answered yet.
        encoders: how many it has, as it last said.
        mean_encoders: how many it has had on average; None before the first one was there.
    """

    actor: Any
    ready: bool = False
    suspect: bool = False
    units: list[Unit] = field(default_factory=list)
    encoders: int = 0
    mean_encoders: float | None = None


class _Crew:
    """The actors of a run, and the units that each of them has."""

    def __init__(self, work: UnitWork, allocation: Allocation, bytes_ahead: int) -> None:
        self._allocation, self._bytes_ahead = allocation, bytes_ahead
        self._work = ray.put(work)
        self._members: list[_Member] = []
        self._asked: dict[Any, tuple[_Member, Unit | None]] = {}  # by reference to the answer; None: is it ready?
        self._waiting: deque[Unit] = deque()
        self._suspects: deque[Unit] = deque()
        self._deaths = 0  # of actors that were loading, since one has loaded
        self._rates = ""
        self._last: Workers | None = None  # when this was closed

    @property
    def workers(self) -> Workers:
        if self._last is not None:
            return self._last
        alive = [member for member in self._members if member.ready]
        return Workers(
            encoders=sum(member.encoders for member in alive) or self._allocation.actors * self._allocation.encoders,
            scorers=self._allocation.actors,
            shared=False,
            alive=len(alive),
            mean_encoders=sum(member.mean_encoders or 0.0 for member in alive) or None,
        )

    def score(self, units: Sequence[Unit]) -> Iterator[tuple[Unit, UnitMarker | None]]:
        """Yield each unit with its marker, or None if it has no attempts left. Raises as :func:`ray.get`."""
        self._waiting.extend(units)
        for _ in range(self._allocation.actors):
            self._start()
        while self._waiting or self._suspects or any(member.units for member in self._members):
            self._hand_out()
            done, _ = ray.wait(list(self._asked))
            for reference in done:
                member, unit = self._asked.pop(reference)
                try:
                    answer: Answer = ray.get(reference)
                except ray.exceptions.RayError as error:
                    if not is_death(error):
                        raise
                    self._died(member, error)
                    continue
                self._heard(member, answer)
                if unit is not None:
                    member.units.remove(unit)
                    member.suspect = False
                    yield unit, None if answer.marker is None else UnitMarker.from_bytes(answer.marker)

    def close(self) -> None:
        """End the actors, and with them their encoders: a driver that lives on must not keep their resources."""
        self._last = self.workers
        for member in self._members:
            ray.kill(member.actor)
        self._members.clear()
        self._asked.clear()

    def _start(self) -> None:
        allocation = self._allocation
        actor = ray.remote(ScoreActor).options(
            num_cpus=allocation.cpus_per_actor,
            num_gpus=allocation.gpus_per_actor,
            max_concurrency=CALLS + 1,  # and one that asks whether it is ready
            max_restarts=0,
        )
        member = _Member(actor.remote(self._work, allocation, self._bytes_ahead))
        self._members.append(member)
        self._asked[member.actor.ready.remote()] = member, None

    def _hand_out(self) -> None:
        """Give units to actors that are ready, the least busy first. A suspect is given to an idle one, and alone."""
        free = [member for member in self._members if member.ready and not member.suspect]
        while self._waiting or self._suspects:
            member = min(free, key=lambda one: len(one.units), default=None)
            if member is None or len(member.units) == CALLS:
                return
            if self._suspects and not member.units:
                member.suspect = True
                free.remove(member)
                self._give(member, self._suspects.popleft())
            elif self._waiting:
                self._give(member, self._waiting.popleft())
            else:
                return

    def _give(self, member: _Member, unit: Unit) -> None:
        member.units.append(unit)
        self._asked[member.actor.score.remote(unit)] = member, unit

    def _heard(self, member: _Member, answer: Answer) -> None:
        self._deaths, member.ready = 0, True
        member.encoders, member.mean_encoders = answer.encoders, answer.mean_encoders
        if answer.rates is not None:
            rates = answer.rates
            said = f"an actor has {answer.encoders} encoders"
            if said != self._rates and rates.score_seconds is not None:
                self._rates = said
                log.info(
                    "%s: a row takes %.3g s to encode and %.3g s to score",
                    *(said, rates.encode_seconds, rates.score_seconds),
                )

    def _died(self, member: _Member, error: Exception) -> None:
        """Replace an actor that died. Its units are tried again, each alone."""
        log.warning("an actor died (%s) with %d units", cause_of_death(error), len(member.units))
        if not member.ready:
            self._deaths += 1
            if self._deaths == MAX_LOADS * self._allocation.actors:
                raise RunError(
                    f"{self._deaths} actors in a row died while they loaded the model, the last of "
                    f"{cause_of_death(error)}; check that the model fits the memory of the worker and of its device"
                ) from error
        self._members.remove(member)
        self._asked = {reference: asked for reference, asked in self._asked.items() if asked[0] is not member}
        self._suspects.extend(member.units)
        ray.kill(member.actor)  # it may be unreachable rather than dead
        self._start()


def _isolate(work: UnitWork, unit: Unit) -> UnitMarker:
    return isolation.isolate(work, unit)


def _publish(work: UnitWork, planned: ShardPlan) -> PublishedShard:
    return work.publish(planned)
