from __future__ import annotations

import io

import pytest

from pipelines.progress import line as progress
from pipelines.progress.line import ProgressLine
from pipelines.run.tally import FailureTally, Tally, total
from scorer.types import Usage


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def scored(rows: int, start: float, end: float, **counts: int) -> Tally:
    return Tally(**{"rows": rows, "ok": rows, "tokens": rows, **counts}, sessions={"here": (start, end)})


def test_a_plain_line_every_few_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    line.begin(1000, 0)
    for second in range(20):
        clock.now += 1
        line.add(scored(10, second, second + 1, ok=9, tokens=100))
    line.end()
    first, *lines = stream.getvalue().splitlines()
    assert first == "scoring 1,000 rows; starting workers and loading the model"
    assert len(lines) == 4, "one every five seconds, the last of which has it all"
    assert lines[-1].startswith("progress: 200/1,000 rows")
    assert lines[0] == "progress: 50/1,000 rows (5%) · 10 rows/s · 100 tokens/s · ETA 1:35 · failed 5"
    assert "\r" not in stream.getvalue()


def test_one_updating_line_on_a_terminal(clock: Clock) -> None:
    stream = Terminal()
    line = ProgressLine(stream)
    line.begin(100, 0)
    for _ in range(2):
        clock.now += 1
        line.add(scored(50, 0, 1))
    line.end()
    first, second, *_ = stream.getvalue().split("\r")[1:]
    assert first.startswith("████████████░░░░░░░░░░░░ 50/100 rows (50%)")
    assert second.startswith("████████████████████████ 100/100 rows (100%)")
    assert stream.getvalue().endswith("\n")
    assert stream.getvalue().count("\n") == 2


def test_rates_count_this_process_and_not_its_start(clock: Clock) -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    line.begin(1000, 900)
    clock.now += 60  # of which 50 went by until the first unit began
    line.add(scored(50, 50, 60))
    assert stream.getvalue().splitlines() == [
        "900 of 1,000 rows are already scored",
        "scoring 100 rows; starting workers and loading the model",
        "progress: 950/1,000 rows (95%) · 5 rows/s · 5 tokens/s · ETA 0:10 · failed 0",
    ]


def test_nothing_to_do_says_nothing_more(clock: Clock) -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    line.begin(0, 0)
    line.end()
    assert stream.getvalue() == ""


def test_tallies_add_up_and_keep_the_first_examples() -> None:
    parts = [
        Tally(
            rows=2,
            ok=1,
            failures={"x": FailureTally(1)},
            paths={"fast": 1},
            usage=Usage(10, 12),
            sessions={"a": (i, i + 1.0)},
        )
        for i in range(3)
    ]
    other = Tally(rows=1, ok=1, tokens=5, paths={"plain": 1}, usage=Usage(10, 14), sessions={"b": (100.0, 110.0)})
    result = total([*parts, other])
    assert (result.rows, result.ok, result.failed, result.tokens) == (7, 4, 3, 5)
    assert result.failures["x"].count == 3
    assert result.paths == {"fast": 3, "plain": 1}
    assert (result.usage, result.usage.waste) == (Usage(40, 50), pytest.approx(0.2))
    assert result.seconds == 3 + 10, "the pause between two processes is no working time"
    assert Tally.from_dict(result.to_dict()) == result
