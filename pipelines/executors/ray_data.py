"""Units on a Ray cluster, by Ray Data: one pool of actors reads and encodes, another holds the model.

    units ──► encode (actors, CPU) ──► score and commit (actors, GPU) ──► markers

One row of the dataset is one unit, one block is one row: a unit stays whole from start to commit, whatever block
sizes Ray Data would like. What is committed, Ray Data does not know: its retries and ours meet in the markers.

An actor that hangs on a row ends itself. Ray starts one that ended again, and its units with it, without end. A unit
that had its attempts goes through the stages untouched, and is isolated when the pipeline has ended and the devices
are free.
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
"""Units that an encoder is given at a time: one in work and one that waits, so that it never does."""
CALLS: Final = 2
"""Units that a scorer has in work: one is scored, one is committed."""
WAVE: Final = 20_000
"""Units of one pipeline. Before it begins, Ray Data makes a block of each, which takes 1.5 ms and 3 kB of the driver;
after it, the next one's actors load the model anew."""
BYTES_AHEAD: Final = 1 << 30
"""Encoded bytes per actor that may wait in the object store before encoding waits."""
_UNIT: Final = "unit"
_PAYLOAD: Final = "payload"
_MARKER: Final = "marker"
_ACTOR: Final = "actor"
SILENCE: Final = 120.0
"""Seconds after which an actor that has ended no unit is not counted as alive."""


class RayDataExecutor:
    """See :class:`pipelines.executors.Executor`. Starts or joins a cluster at the first call.

    Args:
        options: how many actors, and what each takes.
        address: a cluster's address; None takes ``RAY_ADDRESS``, or starts one on this machine for this run.
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
            # What these tasks wait for may die, they may not but with their node: Ray's few retries are enough.
            waiting = [isolate.remote(work, unit) for unit in left.values()]
            while waiting:
                done, waiting = ray.wait(waiting)
                yield ray.get(done[0])

    def publish(self, work: UnitWork, planned: ShardPlan) -> Future[PublishedShard]:
        connect(self._address)
        if self._publish is None:
            # Publishing waits for storage and needs no CPU of its own: the actors may hold them all but one.
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
        # Actors and not tasks: an encoder takes seconds to load, and Ray Data would fuse tasks of equal arguments
        # with the next stage, where encoding costs the GPU's time.
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
    """A pool whose actors are called by :data:`CALLS` threads each, in the words of the Ray that is installed."""
    options = {"size": actors, "max_tasks_in_flight_per_actor": CALLS + 1, "enable_true_multi_threading": True}
    if "max_concurrent_calls_per_actor" in inspect.signature(ray.data.ActorPoolStrategy).parameters:
        return {"compute": ray.data.ActorPoolStrategy(**options, max_concurrent_calls_per_actor=CALLS)}
    return {"compute": ray.data.ActorPoolStrategy(**options), "max_concurrency": CALLS}


class EncodeActor:
    """Stage one, on a CPU: a unit → its encoded rows, pickled; None in their place where none is to be scored."""

    def __init__(self, work: UnitWork) -> None:
        self._work = work
        heartbeat = Heartbeat(work.row_timeout)
        self._encoder = _load(lambda: WatchedEncoder(work.engine.encoder(), heartbeat))
        end_process_on_hang(heartbeat)

    def __call__(self, batch: pa.Table) -> pa.Table:
        unit: Unit = pickle.loads(batch[_UNIT][0].as_buffer())
        encoder = _loaded(self._encoder)
        begun = attempts.begin(self._work.store, unit, "encode")
        encoded = self._work.encode(unit, encoder) if begun else None
        payload = pickle.dumps((unit, encoded), protocol=pickle.HIGHEST_PROTOCOL)
        # large_binary: a unit of many large pictures may exceed the 2 GiB that binary's offsets reach.
        return pa.table({_PAYLOAD: pa.array([payload], pa.large_binary())})


class ScoreActor:
    """Stage two, beside the model: encoded rows → a committed unit's marker; null for one that is left.

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
            # Begun in here: what kills the process counts against no unit that only waits for its turn.
            if encoded is not None and attempts.begin(self._work.store, unit, "score"):
                scored = self._work.score(unit, encoded, scorer)
        marker = None if scored is None else self._work.commit(unit, scored).to_bytes()
        actor = ray.get_runtime_context().get_actor_id()
        return pa.table({_MARKER: pa.array([marker], pa.binary()), _ACTOR: [actor]})


def _load(make: Callable[[], T]) -> T | Exception:
    """Load while the actor starts, but fail at its first call: of a constructor's error Ray reports text only."""
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
    """Raise what a worker raised, not what Ray wrapped around it."""
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
    """The worker's own error where it is one of ours or the storage's; anything else is logged in full."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (TokensightError, OSError)) and not isinstance(seen, ray.exceptions.RayError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    log.error("a worker failed", exc_info=error)
    lines = [line for line in str(error).splitlines() if line.strip()]
    return RunError(f"a worker failed: {lines[-1].strip() if lines else type(error).__name__}")
