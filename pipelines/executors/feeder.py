"""Keep a scoring actor fed: a thread asks encoders for rows ahead of the scorer, and replaces those that die.

What an encoder is, and how it is asked, is the pool's matter (:mod:`.ray_encoders`). Which rows are asked for is
decided in :mod:`.feed`, and how many encoders there are in :mod:`.balance`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from pipelines.executors.balance import Balance, Meter
from pipelines.executors.feed import Chunk, Feed
from pipelines.executors.packing import PackedBlock
from pipelines.output.plan import Unit
from pipelines.run.captions import EncodedRow
from pipelines.run.encoding import WHO, add_seconds
from pipelines.run.trials import Trials
from scorer.errors import RunError

log = logging.getLogger(__name__)

MAX_LOADS: Final = 4
"""Processes in a row that may die while they load before the run ends: a few may have been killed from outside."""
_TICK: Final = 0.05


@dataclass(frozen=True, slots=True)
class Ready:
    """An encoder has loaded."""

    encoder: Hashable


@dataclass(frozen=True, slots=True)
class Arrived:
    """An encoder has returned a block for a chunk."""

    chunk: Chunk
    block: PackedBlock


@dataclass(frozen=True, slots=True)
class Died:
    """An encoder is gone."""

    encoder: Hashable
    cause: str


@dataclass(frozen=True, slots=True)
class Failed:
    """An encoder raised an error that ends the run, rather than failing a row."""

    error: BaseException


Event = Ready | Arrived | Died | Failed


class Pool(Protocol):
    """Encoder processes. :meth:`wait` is called by one thread; the others by any, one at a time."""

    def start(self) -> Hashable:
        """Start an encoder without waiting for it: the cluster may never have room for it. Return what names it."""
        ...

    def ask(self, encoder: Hashable, chunk: Chunk) -> None:
        """Have an encoder encode a chunk, after those it was asked for before."""
        ...

    def stop(self, encoder: Hashable) -> None:
        """End an encoder, whatever it is doing. Nothing is heard of it any more."""
        ...

    def wait(self, seconds: float) -> Sequence[Event]:
        """Wait until something happens, for so many seconds at most."""
        ...


class UnitSpentError(Exception):
    """Encoders have died on a unit as often as they may."""


class Feeder:
    """Feeds units to a scorer, in the order in which they are added. For several threads.

    Args:
        pool: starts encoders.
        balance: decides how many.
        begin: begins another attempt at encoding a unit, after an encoder died on it; False if there must be none.
        bytes_ahead: see :class:`pipelines.executors.feed.Feed`.
    """

    def __init__(self, pool: Pool, balance: Balance, begin: Callable[[Unit], bool], bytes_ahead: int) -> None:
        self._pool, self._balance, self._begin = pool, balance, begin
        self._feed = Feed(bytes_ahead)
        self._meter = Meter()
        self._starting: set[Hashable] = set()
        self._deaths = 0  # of encoders that were loading, since one has loaded
        self._spent: set[str] = set()
        self._error: BaseException | None = None
        self._waiting = False
        self._changed = threading.Condition()
        self._closed = False
        with self._changed:
            self._adjust()
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self._thread.start()

    @property
    def balance(self) -> Balance:
        return self._balance

    @property
    def encoders(self) -> int:
        """The number of encoders that have loaded."""
        return len(self._feed.encoders)

    @property
    def mean_encoders(self) -> float | None:
        """The mean of that number since the first one was there; None before."""
        return self._meter.mean

    def close(self) -> None:
        """End the encoders and the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        for encoder in (*self._starting, *self._feed.encoders):
            self._pool.stop(encoder)

    @contextmanager
    def turn(self, unit: Unit) -> Iterator[FedUnit]:
        """Feed a unit; within the block it is its turn, which waits for the units before. Yield its rows."""
        with self._changed:
            self._feed.add(unit)
            self._ask()
            self._changed.notify_all()
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._feed.first is unit or self._closed)
            yield FedUnit(self, unit)
        finally:
            with self._changed:
                self._feed.remove(unit)
                self._spent.discard(unit.id)
                self._ask()
                self._changed.notify_all()

    def scored(self, rows: int, seconds: float) -> None:
        """Tell how long the scorer worked on a unit."""
        with self._changed:
            self._balance.scored(rows, seconds)
            self._adjust()

    def take(self, unit: Unit) -> PackedBlock:
        """Wait for the unit's next block, and return it. Its turn must have come.

        Raises:
            UnitSpentError: encoders have died on the unit as often as they may.
            RunError: encoders die while they load.
            Exception: an encoder's error that ends the run.
            RuntimeError: the feeder was closed.
        """
        with self._changed:
            self._waiting = True
            try:
                while True:
                    if self._error is not None:
                        raise self._error
                    if self._closed:
                        raise RuntimeError("the feeder was closed")
                    if unit.id in self._spent:
                        raise UnitSpentError
                    block = self._feed.take(unit)
                    if block is not None:
                        self._ask()
                        return block
                    self._changed.wait()
            finally:
                self._waiting = False

    def restart(self, unit: Unit) -> None:
        """Feed a unit from its first row again."""
        with self._changed:
            if unit.id not in self._spent:
                self._feed.restart(unit)
                self._ask()

    def _run(self) -> None:
        before = time.monotonic()
        while not self._closed:
            try:
                self._handle(self._pool.wait(_TICK))
            except BaseException as error:  # else the scorer would wait forever
                log.exception("feeding the scorer failed")
                self._handle([Failed(error)])
                return
            now = time.monotonic()
            with self._changed:
                if self._waiting and self._feed.all_at_work and not self._starting:
                    self._balance.hungry(now - before)
                    self._adjust()
            before = now

    def _handle(self, events: Sequence[Event]) -> None:
        blamed: list[Unit] = []
        with self._changed:
            for event in events:
                if isinstance(event, Ready):
                    self._starting.discard(event.encoder)
                    self._feed.join(event.encoder)
                    self._deaths = 0
                elif isinstance(event, Arrived):
                    self._balance.encoded(event.block.rows, sum(event.block.stages.values()))
                    self._feed.arrive(event.chunk, event.block)
                elif isinstance(event, Failed):
                    self._error = self._error or event.error
                else:
                    blamed += self._died(event)
        for unit in blamed:
            granted = self._begin(unit)
            with self._changed:
                if not granted:
                    self._spent.add(unit.id)
                    self._feed.give_up(unit)
        with self._changed:
            self._adjust()
            self._ask()
            if events:
                self._changed.notify_all()

    def _died(self, event: Died) -> list[Unit]:
        """Take note of an encoder's death. Return the unit that it died on, if it did."""
        self._pool.stop(event.encoder)  # it may be unreachable rather than dead
        if event.encoder in self._starting:
            self._starting.discard(event.encoder)
            self._deaths += 1
            problem = f"{self._deaths} encoders in a row died while they loaded, the last of {event.cause}"
            if self._deaths >= MAX_LOADS and not self._feed.encoders:
                self._error = RunError(f"{problem}; check that the worker has memory for them, or lower --encoders")
            elif self._deaths >= MAX_LOADS:
                self._balance.limit(len(self._feed.encoders))
                log.warning("%s; going on with %d", problem, len(self._feed.encoders))
            return []
        chunk = self._feed.leave(event.encoder)
        if chunk is None:
            return []
        log.warning(
            "an encoder died (%s) at rows %d to %d of %s", event.cause, chunk.start, chunk.stop, chunk.unit.shard.name
        )
        return [chunk.unit]

    def _adjust(self) -> None:
        """Start encoders, or end idle ones, until there are as many as are wanted."""
        self._meter.set(len(self._feed.encoders))
        if self._closed or self._error is not None:
            return
        while len(self._starting) + len(self._feed.encoders) < self._balance.wanted:
            self._starting.add(self._pool.start())
        while len(self._starting) + len(self._feed.encoders) > self._balance.wanted:
            idle = next(iter(self._starting), None) or self._feed.idle()
            if idle is None:
                return
            self._starting.discard(idle)
            self._feed.leave(idle)
            self._pool.stop(idle)

    def _ask(self) -> None:
        if not self._closed and self._error is None:
            for chunk in self._feed.asks():
                assert chunk.encoder is not None
                self._pool.ask(chunk.encoder, chunk)


class FedUnit:
    """See :class:`pipelines.run.score_unit.EncodedRows`: a unit's rows, from a feeder.

    Iterating raises what :meth:`Feeder.take` raises, and RunError if the encoder raised on each of several rows.
    """

    def __init__(self, feeder: Feeder, unit: Unit) -> None:
        self._feeder, self._unit = feeder, unit
        self._begun = False
        self.stages: dict[str, float] = {}

    def __iter__(self) -> Iterator[EncodedRow]:
        if self._begun:
            self._feeder.restart(self._unit)
        self._begun = True
        trials, left = Trials(), self._unit.rows
        while left > 0:
            block = self._feeder.take(self._unit)
            add_seconds(self.stages, block.stages)
            trials += block.trials
            left -= block.rows
            rows = block.unpack()
            del block  # what the scorer holds of it is all that keeps it
            rows.reverse()
            while rows:
                yield rows.pop()
        trials.check(WHO)
