"""Hangs are told from slowness, and end the process that cannot be rid of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator

import pytest

from pipelines.executors.isolation import heartbeat as module
from pipelines.executors.isolation.heartbeat import (
    HUNG_STATUS,
    LAST_RESORT_STATUS,
    AbandonedError,
    Heartbeat,
    WatchedEncoder,
    WatchedScorer,
)
from pipelines.run.encoding import encode_rows
from scorer.results import Failure, Result
from scorer.types import EncodedSample, Sample, Usage
from tests.conftest import ROOT
from tests.pipelines.fake_engine import FakeEngine


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in its one element."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_only_what_takes_too_long_hangs(clock: list[float]) -> None:
    heartbeat = Heartbeat(10)
    clock[0] += 1000
    assert not heartbeat.hangs(), "nothing is being done"
    with heartbeat.beating():
        assert heartbeat.busy
        clock[0] += 10
        assert not heartbeat.hangs()
        clock[0] += 1
        assert heartbeat.hangs()
    assert not heartbeat.hangs()
    assert not heartbeat.busy


def test_without_a_timeout_nothing_hangs(clock: list[float]) -> None:
    heartbeat = Heartbeat(None)
    with heartbeat.beating():
        clock[0] += 1e9
        assert not heartbeat.hangs()


def test_rows_one_after_the_other_do_not_add_up(clock: list[float]) -> None:
    heartbeat, hung = Heartbeat(10), []

    class Slow:
        def try_encode(self, sample: Sample) -> EncodedSample | Failure:
            clock[0] += 9
            hung.append(heartbeat.hangs())
            return FakeEngine().encoder().try_encode(sample)

    rows = [Sample.caption(str(i), b"ok", "a kite") for i in range(5)]
    assert len(encode_rows(rows, WatchedEncoder(Slow(), heartbeat))) == 5
    assert hung == [False] * 5


@pytest.mark.parametrize("grows", [True, False])
def test_a_batch_that_comes_through_is_a_sign_of_life(clock: list[float], grows: bool) -> None:
    heartbeat, hung = Heartbeat(10), []

    class Batches:
        path = "fake"
        usage = Usage(7, 7)

        def score_batches(self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int) -> list[Result]:
            for _ in list(rows):
                clock[0] += 9
                hung.append(heartbeat.hangs())
                self.usage += Usage(5 * grows, 5 * grows)
            return []

    rows = [Failure(str(i), None, "") for i in range(3)]  # type: ignore[arg-type]  # no more is needed of them
    scorer = WatchedScorer(Batches(), heartbeat)
    scorer.score_batches(rows, 8192)
    assert hung == ([False] * 3 if grows else [False, True, True])
    assert (scorer.path, scorer.usage) == ("fake", Usage(7 + 15 * grows, 7 + 15 * grows))


def test_waiting_for_rows_is_not_watched_and_their_encoding_is(clock: list[float]) -> None:
    heartbeat = Heartbeat(10)
    seen: list[tuple[str, bool, bool]] = []

    def look(step: str) -> None:
        clock[0] += 11
        seen.append((step, heartbeat.busy, heartbeat.hangs()))

    class Slow:
        def try_encode(self, sample: Sample) -> EncodedSample | Failure:
            look("encode")
            return FakeEngine().encoder().try_encode(sample)

    class Scorer:
        path, usage = "fake", Usage()

        def score_batches(self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int) -> list[Result]:
            for _ in rows:
                assert heartbeat.step == "score"
                look("score")
            return []

    def rows() -> Iterator[EncodedSample | Failure]:
        for i in range(2):
            look("wait")  # for another process, or for storage
            yield WatchedEncoder(Slow(), heartbeat).try_encode(Sample.caption(str(i), b"ok", "a kite"))

    WatchedScorer(Scorer(), heartbeat).score_batches(rows(), 8192)
    assert seen == [("wait", False, False), ("encode", True, True), ("score", True, True)] * 2
    assert not heartbeat.busy


def test_it_says_which_step_hangs() -> None:
    heartbeat = Heartbeat(10)

    class Dead:
        def try_encode(self, sample: Sample) -> EncodedSample | Failure:
            raise AbandonedError

    def rows() -> Iterator[EncodedSample | Failure]:
        yield WatchedEncoder(Dead(), heartbeat).try_encode(Sample.caption("a", b"ok", "a kite"))

    with pytest.raises(AbandonedError):
        WatchedScorer(FakeEngine().scorer(), heartbeat).score_batches(rows(), 8192)
    assert heartbeat.step == "encode"


def test_an_abandoned_thread_does_no_more_even_where_errors_are_rows() -> None:
    heartbeat = Heartbeat(10)
    heartbeat.abandoned = True
    samples = [Sample.caption("a", b"ok", "a kite")]
    with pytest.raises(AbandonedError):
        encode_rows(samples, WatchedEncoder(FakeEngine().encoder(), heartbeat))
    with pytest.raises(AbandonedError):
        WatchedScorer(FakeEngine().scorer(), heartbeat).score_batches([], 8192)


@pytest.mark.parametrize(
    ("stuck", "status", "said"),
    [
        ("time.sleep(60)", HUNG_STATUS, "no row or batch was finished for 0.4 s"),
        # Holds the interpreter's lock: no thread of Python's can tell.
        ("re.match('(a+)+$', 'a' * 60 + 'b')", LAST_RESORT_STATUS, "Timeout"),
        ("time.sleep(0.1)", 0, "through"),
    ],
)
@pytest.mark.parametrize("before", [0.2, 0.0])
def test_a_process_that_hangs_ends_itself(before: float, stuck: str, status: int, said: str) -> None:
    program = f"""
import re, sys, time
from pipelines.executors.isolation.heartbeat import Heartbeat, end_process_on_hang
heartbeat = Heartbeat(0.4)
end_process_on_hang(heartbeat)
with heartbeat.beating():
    time.sleep({before})
    {stuck}
print("through", file=sys.stderr)
time.sleep(1.0)  # not watched any more
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert ("line" in done.stderr) == (status != 0), "where it hung"
