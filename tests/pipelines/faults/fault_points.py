"""Fault points inside one process: a store in a dict that hands over control before and after everything it does.

At such a moment a run may be killed, by an exception that nothing catches, or another run may take its turn. Thousands
of both cost seconds; :mod:`tests.pipelines.faults.killing` does the same to real processes and files, some dozen times.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pipelines.executors.local import LocalExecutor
from pipelines.output.commit import UnitMarker, find_marker
from pipelines.output.plan import Unit
from pipelines.run.engine import Engine
from pipelines.run.job import Job, prepare
from pipelines.run.score_unit import UnitWork
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import RecordingWatch, make_job

SHARDS = {"a.parquet": 4, "empty.parquet": 0, "sub/b.parquet": 2}
ROWS_PER_UNIT = 2
UNITS = 3


class KilledError(BaseException):
    """Ends a run as SIGKILL would: no handler of the program's own catches it."""


@dataclass
class DictStore:
    """See :class:`pipelines.output.store.Store`.

    Attributes:
        objects: shared by the stores of one output.
        moment: called before and after every effect; may raise, or wait.
        lax: a create looks first and writes later, as OpenStack Swift does: several creators may win.
        created: keys of creates that won.
        written: digests of what was written under each key.
    """

    objects: dict[str, bytes]
    moment: Callable[[], None]
    lax: bool = False
    created: list[str] = field(default_factory=list)
    written: dict[str, set[str]] = field(default_factory=dict)
    root: str = "dict"

    def get(self, key: str) -> bytes:
        self.moment()
        if key not in self.objects:
            raise FileNotFoundError(key)
        return self.objects[key]

    def put(self, key: str, data: bytes) -> None:
        self.moment()
        self._write(key, data)
        self.moment()

    def create(self, key: str, data: bytes) -> bool:
        self.moment()
        if key in self.objects:
            return self.objects[key] == data
        if self.lax:
            self.moment()
        self._write(key, data)
        self.created.append(key)
        self.moment()
        return True

    @contextmanager
    def staged(self, key: str) -> Iterator[IO[bytes]]:
        buffer = io.BytesIO()
        yield buffer
        self.put(key, buffer.getvalue())

    def sizes(self) -> dict[str, int]:
        self.moment()
        return {key: len(data) for key, data in self.objects.items()}

    def _write(self, key: str, data: bytes) -> None:
        self.objects[key] = data
        self.written.setdefault(key, set()).add(digest(data))


@dataclass(frozen=True, slots=True)
class RoundingEngine(FakeEngine):
    """The same model on another device: its scores differ, its fingerprint does not."""

    def fingerprint(self) -> dict[str, Any]:
        return {"model": "fake", "contrast": "blank", "dtype": "float32"}


class CountingExecutor(LocalExecutor):
    """Counts the units that it scores, and isolates in this process."""

    def __init__(self) -> None:
        self.scored = 0

    def score(self, work: UnitWork, units: Sequence[Unit]) -> Iterator[UnitMarker]:
        return super().score(_Counted.of(work, self), units)

    def isolate(self, work: UnitWork, unit: Unit) -> UnitMarker:
        committed = find_marker(work.store, unit)
        return committed or work.run(unit, work.engine.encoder(), work.engine.scorer())


class _Counted(UnitWork):
    """Work that tells an executor of each unit that begins to be scored."""

    __slots__ = ("_executor",)

    @classmethod
    def of(cls, work: UnitWork, executor: CountingExecutor) -> UnitWork:
        counted = cls(**{f.name: getattr(work, f.name) for f in dataclasses.fields(work)})
        object.__setattr__(counted, "_executor", executor)
        return counted

    def score(self, unit: Unit, *args: Any) -> UnitMarker:
        executor: CountingExecutor = self._executor  # type: ignore[attr-defined]
        executor.scored += 1
        return UnitWork.score(self, unit, *args)


@dataclass(frozen=True)
class Stage:
    """A dataset, the files that one undisturbed run publishes, and the moments that it passes."""

    job: Job
    expected: dict[str, bytes]
    moments: int

    def run(self, store: DictStore, executor: LocalExecutor, engine: FakeEngine | None = None) -> dict[str, Any]:
        job = dataclasses.replace(self.job, store=store, engine=engine or self.job.engine)
        return prepare(job).execute(executor, RecordingWatch())

    def assert_exact(self, objects: dict[str, bytes]) -> None:
        """Byte for byte what the undisturbed run published, so no row is missing or there twice."""
        assert {name: objects[name] for name in SHARDS} == self.expected
        assert sum(key.startswith("_commits/") for key in objects) == UNITS
        summary = json.loads(objects["_SUCCESS"])
        assert (summary["rows"], summary["ok"] + summary["failed"]) == (sum(SHARDS.values()),) * 2
        for shard in summary["shards"]:
            assert shard["sha256"] == digest(objects[shard["name"]])


def make_stage(dataset: Path, engine: Engine | None = None) -> Stage:
    """``dataset`` holds :data:`SHARDS`."""
    job = make_job(dataset, "unused", engine, rows_per_unit=ROWS_PER_UNIT)
    passed = Countdown(None)
    store = DictStore({}, passed)
    Stage(job, {}, 0).run(store, CountingExecutor())
    return Stage(job, {name: store.objects[name] for name in SHARDS}, passed.passed)


class Countdown:
    """Kills at one moment, or never, and counts the moments."""

    def __init__(self, fatal: int | None) -> None:
        self.fatal = fatal
        self.passed = 0

    def __call__(self) -> None:
        if self.passed == self.fatal:
            raise KilledError
        self.passed += 1


def kill_many(stage: Stage, kills: int, seed: int) -> dict[str, int]:
    """Kill runs at random moments, and run each output again until it is finished; ``kills`` in all, or a few more.

    Returns the number of kills, of outputs, and of units that were scored again in vain.
    """
    chosen = random.Random(seed)
    done = Counter[str]()
    while done["kills"] < kills:
        objects: dict[str, bytes] = {}
        executor = CountingExecutor()
        deaths = 0
        while True:
            try:
                stage.run(DictStore(objects, Countdown(chosen.randrange(stage.moments))), executor)
                break
            except KilledError:
                deaths += 1
        stage.assert_exact(objects)
        again = executor.scored - UNITS
        assert again <= deaths, "of each kill, one worker with one unit in work"
        done.update(kills=deaths, outputs=1, again=again)
    return dict(done)


class Turns:
    """Lets one thread run at a time; at every moment a seeded choice says whose turn it is."""

    def __init__(self, threads: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._alive = list(range(threads))
        self._turn = self._random.choice(self._alive)
        self._changed = threading.Condition()

    def moment(self, thread: int) -> None:
        with self._changed:
            self._turn = self._random.choice(self._alive)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._turn == thread)

    def leave(self, thread: int) -> None:
        with self._changed:
            self._alive.remove(thread)
            if self._alive:
                self._turn = self._random.choice(self._alive)
            self._changed.notify_all()


def race(stage: Stage, seed: int, *, lax: bool = False, engines: Sequence[FakeEngine | None] = (None, None)) -> Race:
    """As many jobs as engines, at once on one output."""
    turns = Turns(len(engines), seed)
    race = Race({}, [], {}, [])

    def job(thread: int) -> None:
        try:
            store = DictStore(race.objects, lambda: turns.moment(thread), lax, race.created, race.written)
            turns.moment(thread)
            race.summaries.append(stage.run(store, CountingExecutor(), engines[thread]))
        finally:
            turns.leave(thread)

    threads = [threading.Thread(target=job, args=(i,)) for i in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(race.summaries) == len(engines), "every job ends well"
    return race


@dataclass(frozen=True)
class Race:
    """What jobs that ran beside each other left, and how."""

    objects: dict[str, bytes]
    created: list[str]
    written: dict[str, set[str]]
    summaries: list[dict[str, Any]]

    @property
    def winners(self) -> dict[str, int]:
        """How many creators won each unit."""
        return dict(Counter(key for key in self.created if key.startswith("_commits/")))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
