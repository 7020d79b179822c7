from __future__ import annotations

import pytest

from pipelines.output.tally import Tally
from pipelines.progress.snapshot import Snapshot
from pipelines.run.executor import Workers

RAY = Workers(encoders=4, scorers=2, shared=False, alive=2)
LOCAL = Workers(encoders=1, scorers=1, shared=True, alive=1)


def snapshot(workers: Workers | None, seconds: float = 10.0, **stages: float) -> Snapshot:
    return Snapshot(100, 0, Tally(rows=10, ok=9, tokens=50, sessions={"a": (0.0, seconds)}, stages=stages), workers)


@pytest.mark.parametrize(
    ("workers", "stages", "limit"),
    [
        (RAY, {"read": 1.0, "encode": 38.0, "score": 8.0, "write": 1.0}, "encode"),
        (RAY, {"read": 30.0, "encode": 8.0, "score": 8.0, "write": 1.0}, "read"),
        (RAY, {"read": 8.0, "encode": 8.0, "score": 15.0, "write": 4.0}, "score"),
        (RAY, {"read": 8.0, "encode": 8.0, "score": 4.0, "write": 15.0}, "write"),
        # More seconds than scoring's, but over twice as many workers.
        (RAY, {"encode": 20.0, "score": 15.0}, "score"),
        (LOCAL, {"encode": 4.0, "score": 3.0}, "encode"),
        (RAY, {}, None),
        (None, {"score": 1.0}, None),
    ],
)
def test_what_limits_a_run(workers: Workers | None, stages: dict[str, float], limit: str | None) -> None:
    assert snapshot(workers, **stages).limit == limit


def test_numbers_before_the_first_unit_and_after() -> None:
    empty = Snapshot(100, 20, Tally(), RAY)
    assert (empty.done, empty.seconds_left, empty.limit, empty.rows_per_second) == (20, None, None, 0.0)
    found = snapshot(RAY, score=15.0).to_dict()
    assert (found["rows_done"], found["rows_failed_here"], found["seconds_left"]) == (10, 1, 90.0)
    assert (found["actors"], found["actors_alive"], found["busy"]["score"]) == (2, 2, 0.75)
    assert Snapshot(0, 0, Tally()).share == 1.0
