from __future__ import annotations

import io
import itertools

import pytest

from pipelines.output.tally import Tally
from pipelines.progress import line as module
from pipelines.progress.line import ProgressLine
from pipelines.progress.watch import ProgressWatch
from pipelines.run.executor import Workers


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def scored(rows: int, start: float, end: float, **counts: int) -> Tally:
    return Tally(**{"rows": rows, "ok": rows, "tokens": rows, **counts}, sessions={"here": (start, end)})


def watch(stream: io.StringIO, workers: Workers | None = None) -> ProgressWatch:
    return ProgressWatch([ProgressLine(stream)], lambda: workers)


def test_a_plain_line_every_ten_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    shown = watch(stream)
    shown.begin(1000, 0)
    for second in range(40):
        clock.now += 1
        shown.add(scored(10, second, second + 1, ok=9, tokens=100))
    shown.end()
    first, *lines = stream.getvalue().splitlines()
    assert first == "scoring 1,000 rows; starting workers and loading the model"
    assert len(lines) == 4, "the last of them has it all, and is not said again"
    assert lines[-1].startswith("progress: 400/1,000 rows")
    assert lines[0] == "progress: 100/1,000 rows (10%) · 10 rows/s · 100 tokens/s · ETA 1:30 · failed 10"
    assert "\r" not in stream.getvalue()


def test_what_came_after_the_last_line_is_said_at_the_end(clock: Clock) -> None:
    stream = io.StringIO()
    shown = watch(stream)
    shown.begin(20, 0)
    for second in range(2):
        clock.now += 11 - 10 * second
        shown.add(scored(10, second, second + 1))
    shown.end()
    assert [line.split(" rows")[0] for line in stream.getvalue().splitlines()[1:]] == [
        "progress: 10/20",
        "progress: 20/20",
    ]


def test_one_updating_line_on_a_terminal(clock: Clock) -> None:
    stream = Terminal()
    shown = watch(stream)
    shown.begin(100, 0)
    for _ in range(2):
        clock.now += 1
        shown.add(scored(50, 0, 1))
    shown.end()
    first, second, *_ = stream.getvalue().split("\r")[1:]
    assert first.startswith("████████████░░░░░░░░░░░░ 50/100 rows (50%)")
    assert second.startswith("████████████████████████ 100/100 rows (100%)")
    assert stream.getvalue().endswith("\n")
    assert stream.getvalue().count("\n") == 2


def test_rates_count_this_process_and_not_its_start(clock: Clock) -> None:
    stream = io.StringIO()
    shown = watch(stream)
    shown.begin(1000, 900)
    clock.now += 60  # of which 50 went by until the first unit began
    shown.add(scored(50, 50, 60))
    shown.end()
    assert stream.getvalue().splitlines() == [
        "900 of 1,000 rows are already scored",
        "scoring 100 rows; starting workers and loading the model",
        "progress: 950/1,000 rows (95%) · 5 rows/s · 5 tokens/s · ETA 0:10 · failed 0",
    ]


def test_nothing_to_do_says_nothing_more(clock: Clock) -> None:
    stream = io.StringIO()
    shown = watch(stream)
    shown.begin(0, 0)
    shown.end()
    assert stream.getvalue() == ""


def test_actors_and_the_stage_that_limits(clock: Clock) -> None:
    stream = io.StringIO()
    shown = watch(stream, Workers(encoders=8, scorers=2, shared=False, alive=1))
    shown.begin(100, 0)
    clock.now += 11
    stages = {"read": 4.0, "encode": 36.0, "score": 19.0, "write": 0.5}
    shown.add(Tally(rows=10, ok=10, sessions={"here": (0.0, 10.0)}, stages=stages))
    shown.end()
    assert stream.getvalue().rstrip().endswith("· actors 1/2 · limit score (95% busy)")


def test_a_line_although_nothing_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units may take minutes, and a run that is at work should not look dead."""
    from pipelines.progress import watch as watching

    monkeypatch.setattr(watching, "PERIOD", 0.01)
    clock = itertools.count(0, 20)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    shown = watch(stream)
    shown.begin(100, 0)
    shown.add(scored(10, 0, 1))
    while len(stream.getvalue().splitlines()) < 5:
        pass
    shown.end()
    assert set(stream.getvalue().splitlines()[1:]) == {
        "progress: 10/100 rows (10%) · 10 rows/s · 10 tokens/s · ETA 0:09 · failed 0"
    }
