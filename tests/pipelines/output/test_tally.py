from __future__ import annotations

import pytest

from pipelines.output.tally import FailureTally, Tally, total
from scorer.types import Usage


def test_tallies_add_up_and_keep_the_first_examples() -> None:
    parts = [
        Tally(
            rows=2,
            ok=1,
            failures={"x": FailureTally(1)},
            paths={"fast": 1},
            usage=Usage(10, 12),
            sessions={"a": (i, i + 1.0)},
            stages={"read": 0.5, "score": 1.0},
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
    assert result.stages == {"read": 1.5, "score": 3.0}
    again = Tally.from_dict(result.to_dict())
    assert (again, again.stages) == (result, result.stages)
    old = {key: value for key, value in result.to_dict().items() if key != "stages"}
    assert Tally.from_dict(old) == result, "outputs of before tell of no stages"
