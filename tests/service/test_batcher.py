"""The batcher with a model that waits for the test: order, bounds, deadlines, leaving clients, poison, death."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pytest

from scorer.errors import FailureCode
from scorer.results import Failure
from service.batcher import Batcher
from service.metrics import Metrics
from service.pending import DeadlinePassedError, NotReadyError, QueueFullError, Scored
from tests.service.helpers import eventually

FAR = 1e12


@dataclass(frozen=True, slots=True)
class Row:
    sample_id: str
    length: int = 10


class GatedModel:
    """Scores when the gate is open; remembers its batches; raises on what it is told to."""

    batch_tokens = 100

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[tuple[str, list[str]]] = []
        self.raises: dict[str, BaseException] = {}
        self.checks: BaseException | None = None

    def score(self, contrasts: Sequence[str], rows: Sequence[Any]) -> list[Any]:
        self.batches.append((",".join(contrasts), [row.sample_id for row in rows]))
        self.entered.release()
        assert self.gate.wait(30)
        for row in rows:
            if row.sample_id in self.raises:
                raise self.raises[row.sample_id]
        return [f"scores of {row.sample_id}" for row in rows]

    def check(self) -> None:
        if self.checks is not None:
            raise self.checks

    def wait_entered(self) -> None:
        assert self.entered.acquire(timeout=30)


class Bench:
    """A batcher, its model and what it said."""

    def __init__(self, **options: Any) -> None:
        self.model = GatedModel()
        self.metrics = Metrics()
        self.deaths: list[BaseException] = []
        self.batcher = Batcher(
            lambda: self.model,
            self.metrics,
            **{
                "capacity": 20,
                "max_rows": 8,
                "wait_seconds": 0.0,
                "heartbeat_seconds": 60.0,
                "on_death": self.deaths.append,
                **options,
            },
        )

    def submit(self, name: str, contrast: str = "blank", deadline: float = FAR, length: int = 10) -> Future[Scored]:
        contrasts = tuple(contrast.split(","))
        return self.batcher.submit(Row(name, length), contrasts, deadline)  # type: ignore[arg-type]  # only length is read

    def begin(self) -> None:
        self.batcher.start()
        eventually(lambda: self.batcher.why_not_ready() is None)

    def occupied(self) -> Future[Scored]:
        """The model works on a first sample until the gate opens."""
        first = self.submit("first")
        self.model.wait_entered()
        return first

    def dropped(self, reason: str) -> float:
        return self.metrics.dropped.labels(reason)._value.get()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.begin()
    yield bench
    bench.model.gate.set()
    bench.batcher.stop(30)
    assert not bench.batcher._thread.is_alive()


def names(futures: Sequence[Future[Scored]]) -> list[Any]:
    return [future.result(30).result for future in futures]


def test_what_waits_is_scored_together(bench: Bench) -> None:
    first = bench.occupied()
    waiting = [bench.submit(str(i)) for i in range(5)]
    bench.model.gate.set()
    assert names([first, *waiting]) == ["scores of first", *(f"scores of {i}" for i in range(5))]
    assert bench.model.batches == [("blank", ["first"]), ("blank", ["0", "1", "2", "3", "4"])]


def test_the_first_of_a_batch_waits_for_others() -> None:
    bench = Bench(wait_seconds=30.0, max_rows=3)
    bench.begin()
    bench.model.gate.set()
    futures = [bench.submit(str(i)) for i in range(3)]  # the third fills the batch, nobody waits 30 seconds
    assert names(futures) == ["scores of 0", "scores of 1", "scores of 2"]
    assert bench.model.batches == [("blank", ["0", "1", "2"])]
    bench.batcher.stop(30)


def test_a_batch_keeps_the_token_budget(bench: Bench) -> None:
    """Rows × longest row ≤ 100; a sample beyond it goes alone."""
    first = bench.occupied()
    lengths = {"a": 30, "b": 30, "c": 40, "d": 10, "e": 400, "f": 10}
    futures = [bench.submit(name, length=length) for name, length in lengths.items()]
    bench.model.gate.set()
    names([first, *futures])
    assert [batch for _, batch in bench.model.batches[1:]] == [["a", "b", "d"], ["c", "f"], ["e"]]


def test_a_batch_keeps_the_row_limit_and_the_order(bench: Bench) -> None:
    first = bench.occupied()
    futures = [bench.submit(str(i), length=1) for i in range(19)]
    bench.model.gate.set()
    names([first, *futures])
    assert [len(batch) for _, batch in bench.model.batches[1:]] == [8, 8, 3]
    assert [name for _, batch in bench.model.batches[1:] for name in batch] == [str(i) for i in range(19)]


def test_contrasts_do_not_mix_and_none_starves(bench: Bench) -> None:
    first = bench.occupied()
    futures = [bench.submit(f"{i}", ("blank", "blur", "blank,blur")[i % 3]) for i in range(6)]
    bench.model.gate.set()
    names([first, *futures])
    assert bench.model.batches[1:] == [("blank", ["0", "3"]), ("blur", ["1", "4"]), ("blank,blur", ["2", "5"])]


def test_the_queue_is_bounded(bench: Bench) -> None:
    first = bench.occupied()
    futures = [bench.submit(str(i), length=1) for i in range(20)]
    with pytest.raises(QueueFullError, match="20 samples are waiting, queue_size=20"):
        bench.submit("one too many")
    bench.model.gate.set()
    assert len(names([first, *futures])) == 21


def test_a_deadline_is_checked_before_the_work(bench: Bench) -> None:
    first = bench.occupied()
    late, early = bench.submit("late", deadline=time.monotonic() - 1), bench.submit("early")
    bench.model.gate.set()
    with pytest.raises(DeadlinePassedError):
        late.result(30)
    assert names([first, early]) == ["scores of first", "scores of early"]
    assert bench.model.batches[1:] == [("blank", ["early"])]
    assert bench.dropped("deadline") == 1


def test_work_whose_client_has_gone_is_not_done_and_its_place_is_free(bench: Bench) -> None:
    first = bench.occupied()
    futures = [bench.submit(str(i), length=1) for i in range(20)]
    for future in futures[:-1]:
        assert future.cancel()
    assert bench.batcher.depth == 1
    other = bench.submit("other", length=1)
    bench.model.gate.set()
    assert names([first, futures[-1], other]) == ["scores of first", "scores of 19", "scores of other"]
    assert bench.model.batches[1:] == [("blank", ["19", "other"])]
    assert bench.dropped("client_gone") == 19


def test_a_poisonous_sample_fails_alone(bench: Bench) -> None:
    bench.model.raises["3"] = RuntimeError("a kernel failed")
    first = bench.occupied()
    futures = [bench.submit(str(i)) for i in range(8)]
    bench.model.gate.set()
    results = names([first, *futures])[1:]
    failure = results.pop(3)
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.SCORING_FAILED
    assert "RuntimeError" in failure.message
    assert results == [f"scores of {i}" for i in range(8) if i != 3]
    assert bench.batcher.why_not_ready() is None
    again = bench.submit("again")
    assert names([again]) == ["scores of again"]


def test_a_model_that_fails_on_everything_reaches_every_waiter() -> None:
    """Negative control of the above: the samples are not blamed for what is the model's fault."""
    bench = Bench()
    bench.begin()
    first = bench.occupied()
    futures = [bench.submit(str(i), length=1) for i in range(12)]
    bench.model.raises = {name: RuntimeError("device lost") for name in ("first", *map(str, range(12)))}
    bench.model.checks = RuntimeError("device lost")
    bench.model.gate.set()
    for future in (first, *futures):
        with pytest.raises(NotReadyError):
            future.result(30)
    assert "the model's thread ended" in str(bench.batcher.why_not_ready())
    eventually(lambda: len(bench.deaths) == 1)
    with pytest.raises(NotReadyError):
        bench.submit("later")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_whatever_ends_the_thread_reaches_every_waiter(error: BaseException) -> None:
    bench = Bench()
    bench.begin()
    first = bench.occupied()
    futures = [bench.submit(str(i)) for i in range(3)]
    told: list[str | None] = []
    for future in (first, *futures):
        future.add_done_callback(lambda _: told.append(bench.batcher.why_not_ready()))
    bench.model.raises["first"] = error
    bench.model.checks = error
    bench.model.gate.set()
    for future in (first, *futures):
        with pytest.raises(NotReadyError):
            future.result(30)
    assert len(told) == 4 and None not in told, "who is told asks again, and must not be sent here again"
    eventually(lambda: bench.deaths == [error])


def test_a_model_that_does_not_load_is_not_ready() -> None:
    def load() -> Any:
        raise OSError("no such model")

    deaths: list[BaseException] = []
    batcher = Batcher(
        load, Metrics(), capacity=1, max_rows=1, wait_seconds=0, heartbeat_seconds=60, on_death=deaths.append
    )
    assert batcher.why_not_ready() == "the model's thread is not running"
    batcher.start()
    eventually(lambda: len(deaths) == 1)
    assert batcher.why_not_ready() == "the model's thread ended: OSError"


def test_a_silent_thread_is_not_ready() -> None:
    bench = Bench(heartbeat_seconds=0.05)
    bench.begin()
    first = bench.occupied()
    eventually(lambda: "has been silent for" in str(bench.batcher.why_not_ready()))
    bench.model.gate.set()
    names([first])
    bench.batcher.stop(30)


def test_an_idle_thread_gives_signs_of_life(bench: Bench) -> None:
    before = bench.batcher._beat
    eventually(lambda: bench.batcher._beat > before)


def test_stopping_finishes_what_was_accepted_and_takes_nothing_more(bench: Bench) -> None:
    first = bench.occupied()
    futures = [bench.submit(str(i)) for i in range(12)]
    stopper = threading.Thread(target=bench.batcher.stop, args=(30,))
    stopper.start()
    eventually(lambda: bench.batcher.why_not_ready() == "the service is stopping")
    with pytest.raises(NotReadyError, match="the service is stopping"):
        bench.submit("late")
    bench.model.gate.set()
    stopper.join(30)
    assert names([first, *futures]) == ["scores of first", *(f"scores of {i}" for i in range(12))]
    assert bench.deaths == []


def test_stopping_does_not_wait_longer_than_told() -> None:
    bench = Bench()
    bench.begin()
    first = bench.occupied()
    waiting = bench.submit("waiting")
    bench.batcher.stop(0.01)
    with pytest.raises(NotReadyError, match="the service is stopping"):
        waiting.result(30)
    bench.model.gate.set()
    assert names([first]) == ["scores of first"]


def test_a_model_that_loses_a_row_is_found_out(bench: Bench) -> None:
    bench.model.score = lambda contrasts, rows: []  # type: ignore[method-assign]  # a broken model
    result = bench.submit("one").result(30).result
    assert isinstance(result, Failure)
