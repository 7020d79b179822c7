"""A feeder with encoders that are scripted: its thread, its order, and what it does when they die."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from pipelines.executors.balance import HUNGRY_SECONDS, Balance
from pipelines.executors.feed import Chunk
from pipelines.executors.feeder import (
    MAX_LOADS,
    Arrived,
    Died,
    Event,
    Failed,
    FedUnit,
    Feeder,
    Ready,
    UnitSpentError,
)
from pipelines.output.plan import Unit
from pipelines.run.trials import Trials
from scorer.errors import RunError
from tests.pipelines.executors.blocks import block, unit


@dataclass
class Script:
    """Encoders that answer at once.

    Attributes:
        deadly: rows on which an encoder dies, each as often as it says.
        loads: whether encoders get ready.
        dies_loading: whether they die of it.
        error: what encoding raises.
        slow: whether nothing comes.
        raises: whether the encoder raises on every row.
    """

    deadly: dict[int, int] = field(default_factory=dict)
    loads: bool = True
    dies_loading: bool = False
    error: BaseException | None = None
    slow: bool = False
    raises: bool = False
    started: int = 0
    stopped: list[Hashable] = field(default_factory=list)
    asked: list[Chunk] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._events: deque[Event] = deque()
        self._dead: set[Hashable] = set()

    def start(self) -> Hashable:
        self.started += 1
        if self.dies_loading:
            self._events.append(Died(self.started, "SIGKILL"))
        elif self.loads:
            self._events.append(Ready(self.started))
        return self.started

    def ask(self, encoder: Hashable, chunk: Chunk) -> None:
        self.asked.append(chunk)
        if encoder in self._dead or self.slow:
            return
        deadly = next((row for row in range(chunk.start, chunk.stop) if self.deadly.get(row)), None)
        if deadly is not None:
            self.deadly[deadly] -= 1
            self._dead.add(encoder)
            self._events.append(Died(encoder, "SIGSEGV"))
        elif self.error is not None:
            self._events.append(Failed(self.error))
        else:
            trials = Trials()
            for i in range(chunk.start, chunk.stop):
                trials += Trials.of(str(i), ValueError("no") if self.raises else None)
            self._events.append(Arrived(chunk, block(chunk.start, chunk.stop, 1_000, trials=trials)))

    def stop(self, encoder: Hashable) -> None:
        self.stopped.append(encoder)

    def wait(self, seconds: float) -> Sequence[Event]:
        if not self._events:
            time.sleep(0.002)
        return [self._events.popleft() for _ in range(len(self._events))]


@contextmanager
def feeding(pool: Script, attempts: int = 2, balance: Balance | None = None) -> Iterator[Feeder]:
    """A feeder that grants so many attempts to each unit, of which one has begun."""
    left: dict[str, int] = {}

    def begin(one: Unit) -> bool:
        left[one.id] = left.get(one.id, attempts) - 1
        return left[one.id] > 0

    feeder = Feeder(pool, balance or Balance(2, 2), begin, 1_000_000)
    try:
        yield feeder
    finally:
        feeder.close()


def ids(rows: FedUnit) -> list[int]:
    return [int(row.sample_id) for row in rows]


def test_units_are_fed_in_turn_to_the_threads_that_ask() -> None:
    order: list[int] = []
    found: dict[int, list[int]] = {}
    with feeding(Script()) as feeder:

        def work(one: Unit) -> None:
            with feeder.turn(one) as rows:
                order.append(one.start)
                found[one.start] = ids(rows)

        threads = []
        for start in (0, 100, 200):
            threads.append(threading.Thread(target=work, args=(unit(start, 50),)))
            threads[-1].start()
            time.sleep(0.02)
        for thread in threads:
            thread.join(10)
    assert order == [0, 100, 200]
    assert found == {start: list(range(start, start + 50)) for start in order}


def test_rows_come_again_when_they_are_iterated_over_again() -> None:
    one = unit(0, 50)
    with feeding(Script()) as feeder, feeder.turn(one) as rows:
        begun = iter(rows)
        assert next(begun).sample_id == "0"
        assert ids(rows) == list(range(50))
        assert rows.stages["encode"] > 0


def test_a_chunk_that_kills_its_encoder_is_tried_again_and_its_rows_come_once() -> None:
    pool = Script(deadly={7: 1})
    with feeding(pool) as feeder, feeder.turn(unit(0, 50)) as rows:
        assert ids(rows) == list(range(50))
    assert pool.started == 3, "the dead one is replaced"


def test_a_unit_without_attempts_left_is_spent_and_harms_no_other() -> None:
    pool = Script(deadly={107: 2})  # a row of the unit that is encoded ahead
    with feeding(pool) as feeder:
        first, second, third = unit(0, 50), unit(100, 50), unit(200, 50)
        with feeder.turn(first) as rows:
            waiting = [threading.Thread(target=lambda one=one: outcome(feeder, one, ends)) for one in (second, third)]
            ends: dict[int, list[int] | None] = {}
            for thread in waiting:
                thread.start()
                time.sleep(0.05)
            assert ids(rows) == list(range(50))
        for thread in waiting:
            thread.join(10)
    assert ends == {100: None, 200: list(range(200, 250))}
    assert pool.deadly[107] == 0


def outcome(feeder: Feeder, one: Unit, ends: dict[int, list[int] | None]) -> None:
    try:
        with feeder.turn(one) as rows:
            ends[one.start] = ids(rows)
    except UnitSpentError:
        ends[one.start] = None


def test_what_an_encoder_raises_for_the_run_reaches_the_scorer() -> None:
    with (
        feeding(Script(error=RunError("the shard changed"))) as feeder,
        pytest.raises(RunError, match="the shard changed"),
        feeder.turn(unit(0, 50)) as rows,
    ):
        ids(rows)


def test_an_encoder_that_raises_on_every_row_of_a_unit_is_at_fault_itself() -> None:
    with (
        feeding(Script(raises=True)) as feeder,
        pytest.raises(RunError, match="the encoder raised on each of 50 rows, 0 to 49, first ValueError: no"),
        feeder.turn(unit(0, 50)) as rows,
    ):
        ids(rows)


def test_encoders_that_die_while_they_load_end_the_run() -> None:
    pool = Script(dies_loading=True)
    with (
        feeding(pool) as feeder,
        pytest.raises(RunError, match=r"4 encoders in a row died while they loaded, the last of SIGKILL; check that"),
        feeder.turn(unit(0, 50)) as rows,
    ):
        ids(rows)
    assert MAX_LOADS <= pool.started <= MAX_LOADS + 2


def test_further_encoders_that_die_while_they_load_do_not_end_it() -> None:
    pool = Script()
    with feeding(pool, balance=Balance(1, 3)) as feeder:
        with feeder.turn(unit(0, 20)) as rows:
            ids(rows)
        pool.dies_loading = True
        feeder.scored(20, 0.001)
        deadline = time.monotonic() + 5
        while feeder.balance.wanted > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert feeder.balance.wanted == feeder.encoders == 1
        assert pool.started <= 1 + 2 * MAX_LOADS
        with feeder.turn(unit(100, 20)) as rows:
            assert len(ids(rows)) == 20


def test_an_encoder_without_a_place_is_not_waited_for() -> None:
    pool = Script()
    with feeding(pool, balance=Balance(1, 2)) as feeder:
        with feeder.turn(unit(0, 20)) as rows:
            assert len(ids(rows)) == 20
        pool.loads = False
        feeder.scored(20, 0.001)
        assert feeder.balance.wanted == 2
        with feeder.turn(unit(100, 20)) as rows:
            assert len(ids(rows)) == 20
        assert {chunk.encoder for chunk in pool.asked} <= {1, None}


def test_their_number_grows_while_the_scorer_goes_hungry_and_shrinks_when_it_is_measured() -> None:
    pool = Script(slow=True)
    with feeding(pool, balance=Balance(1, 4)) as feeder:
        ended: list[BaseException] = []

        def work() -> None:
            try:
                outcome(feeder, unit(0, 50), {})
            except RuntimeError as error:
                ended.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        deadline = time.monotonic() + 5 * HUNGRY_SECONDS
        while pool.started < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert pool.started == 2
    thread.join(10)
    assert "closed" in str(ended[0]), "nobody is left waiting"
    pool = Script()
    with feeding(pool, balance=Balance(1, 4)) as feeder:
        with feeder.turn(unit(0, 20)) as rows:
            ids(rows)
        feeder.scored(20, 0.001)
        assert pool.started == 4
        feeder.scored(20, 20.0)
        deadline = time.monotonic() + 5
        while len(pool.stopped) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(pool.stopped) == 3
