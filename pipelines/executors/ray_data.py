"""Run units on a Ray cluster with Ray Data: encoders read and encode, actors hold the model.

    units ──► encode (encoders, CPU) ──► score and commit (actors, GPU) ──► markers

Each row of the Ray dataset is one unit, and each block is one row: a unit stays whole from start to commit, whatever
block sizes Ray Data prefers. Ray Data does not know what is committed; the markers make its retries and ours safe.

A process that hangs on a row ends itself. Ray restarts a process that ended, along with its units, without limit. A
unit that has used up its attempts passes through the stages untouched, and is isolated once the pipeline has ended and
the devices are free.
"""

from __future__ import annotations

import inspect
import logging
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import pyarrow as pa
import ray
import ray.data

from pipelines.executors.isolation import isolate as isolation
from pipelines.executors.isolation.heartbeat import Heartbeat, WatchedEncoder, WatchedScorer, end_process_on_hang
from pipelines.executors.ray_cluster import cluster_size, connect
from pipelines.executors.resources import ActorOptions, Allocation, allocate
from pipelines.output import attempts
from pipelines.output.commit import PublishedShard, UnitMarker
from pipelines.output.plan import ShardPlan, Unit
from pipelines.run.executor import Workers
from pipelines.run.score_unit import UnitWork
from scorer.errors import RunError, TokensightError

log = logging.getLogger(__name__)
T = TypeVar("T")

UNITS_AHEAD: Final = 2
"""Units given to an encoder at a time: one in progress and one waiting, so that the encoder never waits."""
CALLS: Final = 2
"""Units in progress in an actor: one being scored, one being committed."""
WAVE: Final = 20_000
"""Units per pipeline. Before it starts, Ray Data makes a block of each, which costs the driver 1.5 ms and 3 kB;
after it, the actors of the next pipeline load the model again."""
BYTES_AHEAD: Final = 1 << 30
"""Encoded bytes per actor that may wait in the object store before encoding pauses."""
_UNIT: Final = "unit"
_PAYLOAD: Final = "payload"
_MARKER: Final = "marker"
_ACTOR: Final = "actor"
SILENCE: Final = 120.0
"""Seconds after its last unit until an actor no longer counts as alive."""


class RayDataExecutor:
    """See :class:`pipelines.run.executor.Executor`. Joins or starts a cluster on the first call.

    Args:
        options: how many actors to use, and the resources of each.
        address: a cluster's address; None means ``RAY_ADDRESS`` or, if that is not set, a new cluster on this machine.
    """

    def __init__(self, options: ActorOptions | None = None, address: str | None = None) -> None:
        self._options = options or ActorOptions()
        self._address = address
        self._publish: Any = None
        self._allocation: Allocation | None = None
        self._heard: dict[str, float] = {}

    @property
    def workers(self) -> Workers | None:
        if self._allocation is None:
            return None
        heard = [when for when in self._heard.values() if time.monotonic() - when < SILENCE]
        return Workers(self._allocation.encoders, self._allocation.actors, shared=False, alive=len(heard))

    def score(self, work: UnitWork, units: Sequence[Unit]) -> Iterator[UnitMarker]:
        if not units:
            return
        connect(self._address)
        for first in range(0, len(units), WAVE):
            yield from self._score_wave(work, units[first : first + WAVE])

    def _score_wave(self, work: UnitWork, units: Sequence[Unit]) -> Iterator[UnitMarker]:
        self._allocation = allocation = allocate(cluster_size(), self._options, len(units))
        log.info(
            "%d actors (%g CPU, %g GPU each), %d encoders",
            allocation.actors,
            allocation.cpus_per_actor,
            allocation.gpus_per_actor,
            allocation.encoders,
        )
        left = {unit.id: unit for unit in units}
        with _readable_errors():
            for row in _pipeline(work, units, allocation).iter_rows():
                self._heard[row[_ACTOR]] = time.monotonic()
                if row[_MARKER] is not None:
                    marker = UnitMarker.from_bytes(row[_MARKER])
                    del left[marker.unit]
                    yield marker
            isolate = ray.remote(num_cpus=allocation.cpus_per_actor, num_gpus=allocation.gpus_per_actor)(_isolate)
            # The processes that these tasks start may die; a task itself dies only with its node, so Ray's few
            # retries are enough.
            waiting = [isolate.remote(work, unit) for unit in left.values()]
            while waiting:
                done, waiting = ray.wait(waiting)
                yield ray.get(done[0])

    def publish(self, work: UnitWork, planned: ShardPlan) -> Future[PublishedShard]:
        connect(self._address)
        if self._publish is None:
            # Publishing mostly waits for storage and reserves no CPU: the actors may hold all but one of them.
            self._publish = ray.remote(num_cpus=0)(_publish)
        return _translated(self._publish.remote(work, planned).future())


def _pipeline(work: UnitWork, units: Sequence[Unit], allocation: Allocation) -> ray.data.Dataset:
    context = ray.data.DataContext.get_current()
    context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
        object_store_memory=BYTES_AHEAD * allocation.actors
    )
    rows = [{_UNIT: pickle.dumps(unit)} for unit in units]
    return (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        # A pool of processes rather than tasks: an encoder takes seconds to load, and Ray Data would fuse tasks with
        # equal arguments into the next stage, where encoding would cost GPU time.
        .map_batches(
            EncodeActor,
            fn_constructor_args=(work,),
            batch_format="pyarrow",
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=allocation.encoders, max_tasks_in_flight_per_actor=UNITS_AHEAD),
            num_cpus=allocation.cpus_per_encoder,
        )
        .map_batches(
            ScoreActor,
            fn_constructor_args=(work,),
            batch_format="pyarrow",
            batch_size=1,
            num_cpus=allocation.cpus_per_actor,
            num_gpus=allocation.gpus_per_actor,
            **_threaded(allocation.actors),
        )
    )


def _threaded(actors: int) -> dict[str, Any]:
    """Return the options for a pool whose actors are called by :data:`CALLS` threads each, for the installed Ray."""
    options = {"size": actors, "max_tasks_in_flight_per_actor": CALLS + 1, "enable_true_multi_threading": True}
    if "max_concurrent_calls_per_actor" in inspect.signature(ray.data.ActorPoolStrategy).parameters:
        return {"compute": ray.data.ActorPoolStrategy(**options, max_concurrent_calls_per_actor=CALLS)}
    return {"compute": ray.data.ActorPoolStrategy(**options), "max_concurrency": CALLS}


class EncodeActor:
    """The first stage, on a CPU: a unit → its encoded rows, pickled; None if the unit has no attempts left."""

    def __init__(self, work: UnitWork) -> None:
        self._work = work
        heartbeat = Heartbeat(work.row_timeout)
        self._encoder = _load(lambda: WatchedEncoder(work.engine.encoder(), heartbeat))
        end_process_on_hang(heartbeat)

    def __call__(self, batch: pa.Table) -> pa.Table:
        unit: Unit = pickle.loads(batch[_UNIT][0].as_buffer())
        encoder = _loaded(self._encoder)
        attempt = attempts.begin(self._work.store, unit, "encode", self._work.session)
        encoded = None if attempt is None else self._work.encode(unit, encoder)
        payload = pickle.dumps((unit, encoded), protocol=pickle.HIGHEST_PROTOCOL)
        # large_binary: a unit with many large images may exceed the 2 GiB that binary's offsets reach.
        return pa.table({_PAYLOAD: pa.array([payload], pa.large_binary())})


class ScoreActor:
    """The second stage, with the model: encoded rows → a committed unit's marker; null for a unit to be isolated.

    Called by :data:`CALLS` threads: while one commits, which waits for storage, another scores.
    """

    def __init__(self, work: UnitWork) -> None:
        self._work = work
        self._scoring = threading.Lock()
        heartbeat = Heartbeat(work.row_timeout)
        self._scorer = _load(lambda: WatchedScorer(work.engine.scorer(), heartbeat))
        end_process_on_hang(heartbeat)

    def __call__(self, batch: pa.Table) -> pa.Table:
        unit, encoded = pickle.loads(batch[_PAYLOAD][0].as_buffer())
        scorer = _loaded(self._scorer)
        scored = None
        with self._scoring:
            # The attempt begins inside the lock, so a crash does not count against a unit that is only waiting.
            attempt = None if encoded is None else attempts.begin(self._work.store, unit, "score", self._work.session)
            if attempt is not None:
                scored = self._work.score(unit, encoded, scorer, attempt.cut)
        marker = None if scored is None else self._work.commit(unit, scored).to_bytes()
        actor = ray.get_runtime_context().get_actor_id()
        return pa.table({_MARKER: pa.array([marker], pa.binary()), _ACTOR: [actor]})


def _load(make: Callable[[], T]) -> T | Exception:
    """Load when the actor starts, but fail on its first call: Ray reports a constructor's error only as text."""
    try:
        return make()
    except Exception as error:
        return error


def _loaded(part: T | Exception) -> T:
    if isinstance(part, Exception):
        raise part
    return part


def _isolate(work: UnitWork, unit: Unit) -> UnitMarker:
    return isolation.isolate(work, unit)


def _publish(work: UnitWork, planned: ShardPlan) -> PublishedShard:
    return work.publish(planned)


@contextmanager
def _readable_errors() -> Iterator[None]:
    """Raise what a worker raised, without Ray's wrapping."""
    try:
        yield
    except ray.exceptions.RayError as error:
        raise _root_cause(error) from error


def _translated(inner: Future[PublishedShard]) -> Future[PublishedShard]:
    outer: Future[PublishedShard] = Future()

    def done(future: Future[PublishedShard]) -> None:
        error = future.exception()
        if error is None:
            outer.set_result(future.result())
        else:
            outer.set_exception(_root_cause(error))

    inner.add_done_callback(done)
    return outer


def _root_cause(error: BaseException) -> BaseException:
    """Return the worker's error if it is ours or the storage's; log anything else in full and return a RunError."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (TokensightError, OSError)) and not isinstance(seen, ray.exceptions.RayError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    log.error("a worker failed", exc_info=error)
    lines = [line for line in str(error).splitlines() if line.strip()]
    return RunError(f"a worker failed: {lines[-1].strip() if lines else type(error).__name__}")
