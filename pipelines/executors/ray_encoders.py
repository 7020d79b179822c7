"""Encoder processes on a Ray cluster: each belongs to the scoring actor that started it, and ends with it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Hashable, Sequence
from typing import Any

import ray

from pipelines.executors.feed import Chunk
from pipelines.executors.feeder import Arrived, Died, Event, Failed, Ready
from pipelines.executors.isolation.heartbeat import Heartbeat, WatchedEncoder, end_process_on_hang
from pipelines.executors.loading import Loaded
from pipelines.executors.packing import PackedBlock
from pipelines.executors.ray_errors import cause_of_death, is_death, root_cause
from pipelines.run.encoding import BlockEncoder
from pipelines.run.score_unit import UnitWork
from pipelines.sources import Shard


class EncodeActor:
    """An encoder: rows of a shard → a packed block of them. A process that hangs on a row ends itself."""

    def __init__(self, work: UnitWork) -> None:
        heartbeat = Heartbeat(work.row_timeout)
        encoder = Loaded(lambda: WatchedEncoder(work.engine.encoder(), heartbeat))
        self._blocks = Loaded(lambda: BlockEncoder(work.source, encoder.get()))
        end_process_on_hang(heartbeat)

    def ready(self) -> None:
        """Return when the encoder is loaded. Raise what loading raised."""
        self._blocks.get()

    def encode(self, shard: Shard, start: int, stop: int) -> PackedBlock:
        """Read and encode rows; see :meth:`pipelines.run.encoding.BlockEncoder.block`."""
        return PackedBlock.pack(self._blocks.get().block(shard, start, stop))


class RayEncoders:
    """See :class:`pipelines.executors.feeder.Pool`.

    Args:
        cpus: the CPUs that each encoder reserves.
    """

    def __init__(self, work: UnitWork, cpus: float) -> None:
        self._work = ray.put(work)
        self._cpus = cpus
        self._numbers = itertools.count()
        self._actors: dict[Hashable, Any] = {}
        self._lock = threading.Lock()
        self._waiting: dict[Any, tuple[Hashable, Chunk | None]] = {}  # encoder and chunk by reference to the answer

    def start(self) -> Hashable:
        number = next(self._numbers)
        actor = ray.remote(EncodeActor).options(num_cpus=self._cpus, max_restarts=0).remote(self._work)
        self._actors[number] = actor
        with self._lock:
            self._waiting[actor.ready.remote()] = number, None
        return number

    def ask(self, encoder: Hashable, chunk: Chunk) -> None:
        shard = chunk.unit.shard.part(chunk.start, chunk.stop)
        reference = self._actors[encoder].encode.remote(shard, chunk.start, chunk.stop)
        with self._lock:
            self._waiting[reference] = encoder, chunk

    def stop(self, encoder: Hashable) -> None:
        self._forget(encoder)
        ray.kill(self._actors.pop(encoder))

    def wait(self, seconds: float) -> Sequence[Event]:
        with self._lock:
            waiting = list(self._waiting)
        if not waiting:
            time.sleep(seconds)
            return []
        done, _ = ray.wait(waiting, timeout=seconds)
        if done:
            done, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        events: list[Event] = []
        dead: dict[Hashable, Event] = {}
        for reference in done:
            with self._lock:
                asked = self._waiting.pop(reference, None)
            if asked is None:
                continue  # the encoder was stopped
            encoder, chunk = asked
            try:
                answer = ray.get(reference)
            except Exception as error:
                if is_death(error):
                    dead[encoder] = Died(encoder, cause_of_death(error))
                else:
                    events.append(Failed(root_cause(error)))
            else:
                events.append(Ready(encoder) if chunk is None else Arrived(chunk, answer))
        for encoder in dead:
            self._forget(encoder)  # else each of its calls would report its death
        return [*events, *dead.values()]  # what a dead encoder still returned counts

    def _forget(self, encoder: Hashable) -> None:
        with self._lock:
            self._waiting = {reference: asked for reference, asked in self._waiting.items() if asked[0] != encoder}
