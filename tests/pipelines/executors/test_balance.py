from __future__ import annotations

import pytest

from pipelines.executors import balance as module
from pipelines.executors.balance import HUNGRY_SECONDS, Balance, Meter


def measured(balance: Balance, encode: float, score: float) -> int:
    for _ in range(50):  # what was before is forgotten
        balance.encoded(10, 10 * encode)
    balance.scored(100, 100 * score)
    return balance.wanted


def test_the_number_follows_from_seconds_a_row() -> None:
    balance = Balance(1, 100)
    assert measured(balance, 0.1, 0.02) == 7, "five, and room for rows that differ"
    assert measured(balance, 0.1, 0.01) == 13
    assert measured(balance, 0.1, 0.011) == 13, "one that is hardly too many stays"
    assert measured(balance, 0.1, 0.1) == 2


@pytest.mark.parametrize(("encode", "wanted"), [(0.001, 2), (10.0, 6)])
def test_it_stays_between_floor_and_ceiling(encode: float, wanted: int) -> None:
    assert measured(Balance(2, 6), encode, 0.1) == wanted


def test_a_fixed_number_stays() -> None:
    balance = Balance(3, 3)
    balance.hungry(10 * HUNGRY_SECONDS)
    assert measured(balance, 10.0, 0.1) == 3


def test_it_doubles_while_the_scorer_goes_hungry_and_nothing_is_measured() -> None:
    balance = Balance(1, 5)
    seen = []
    for _ in range(4):
        balance.hungry(0.6 * HUNGRY_SECONDS)
        seen.append(balance.wanted)
        balance.hungry(0.6 * HUNGRY_SECONDS)
        seen.append(balance.wanted)
    assert seen == [1, 2, 2, 4, 4, 5, 5, 5]
    measured(balance, 0.1, 0.1)
    balance.hungry(10 * HUNGRY_SECONDS)
    assert balance.wanted == 2


def test_a_limit_holds_from_then_on() -> None:
    balance = Balance(4, 8)
    balance.limit(2)
    assert balance.wanted == 2
    assert measured(balance, 10.0, 0.1) == 2
    balance.limit(0)
    assert balance.wanted == 1


def test_a_number_is_averaged_over_time_from_the_first_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    meter = Meter()
    for count, seconds in ((0, 50), (1, 10), (4, 10), (4, 10)):
        meter.set(count)
        assert meter.mean in (None, 1.0, 2.5)
        now[0] += seconds
    assert meter.mean == 3.0


def test_what_costs_nothing_decides_nothing() -> None:
    balance = Balance(1, 5)
    balance.scored(10, 1.0)
    balance.encoded(10, 1.0)
    balance.scored(10, 0.0)
    assert balance.wanted == 1
