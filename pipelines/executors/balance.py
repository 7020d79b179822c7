"""Decide how many encoders feed an actor, from the seconds that rows take to encode and to score. No Ray here."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Final

HEADROOM: Final = 1.25
"""Encoders to have for each one needed: rows differ, and a device that waits costs more than a core that does."""
SURPLUS: Final = 0.75
"""Encoders are ended when fewer than this share of them are needed: one that is missed later takes seconds to load."""
HUNGRY_SECONDS: Final = 2.0
"""Seconds for which the scorer waits for busy encoders before their number doubles, while no unit has been measured."""
_SMOOTHING: Final = 0.2


@dataclass(frozen=True, slots=True)
class Rates:
    """What was measured.

    Attributes:
        encode_seconds: to read and encode a row, in one encoder; recent rows count more.
        score_seconds: to score a row, in the last unit; None before there is one.
    """

    encode_seconds: float
    score_seconds: float | None = None


class Balance:
    """The number of encoders of one actor, between a floor and a ceiling.

    Before the first unit is scored, the number doubles when the scorer goes hungry. From then on it follows from the
    seconds a row, and is decided again after each unit.

    Attributes:
        wanted: how many encoders there should be.
        rates: None before the first row is encoded.
    """

    def __init__(self, floor: int, ceiling: int) -> None:
        self._floor, self._ceiling = floor, max(floor, ceiling)
        self._hungry = 0.0
        self.wanted = floor
        self.rates: Rates | None = None

    def encoded(self, rows: int, seconds: float) -> None:
        """Count rows that one encoder has read and encoded."""
        each = seconds / rows
        if self.rates is None:
            self.rates = Rates(each)
        else:
            smoothed = self.rates.encode_seconds + _SMOOTHING * (each - self.rates.encode_seconds)
            self.rates = Rates(smoothed, self.rates.score_seconds)

    def scored(self, rows: int, seconds: float) -> None:
        """Count the rows of a unit, and the seconds that the scorer worked on them. Decide."""
        if self.rates is None or seconds <= 0:
            return
        self.rates = Rates(self.rates.encode_seconds, seconds / rows)
        needed = math.ceil(HEADROOM * self.rates.encode_seconds / self.rates.score_seconds)  # type: ignore[operator]
        if needed > self.wanted or needed < SURPLUS * self.wanted:
            self.wanted = min(max(needed, self._floor), self._ceiling)

    def limit(self, count: int) -> None:
        """Want no more than so many, and at least one, from now on."""
        self._ceiling = max(1, count)
        self._floor = min(self._floor, self._ceiling)
        self.wanted = min(self.wanted, self._ceiling)

    def hungry(self, seconds: float) -> None:
        """Count seconds for which the scorer waited for rows while every encoder was at work."""
        if self.rates is not None and self.rates.score_seconds is not None:
            return
        self._hungry += seconds
        if self._hungry >= HUNGRY_SECONDS:
            self._hungry = 0.0
            self.wanted = min(2 * self.wanted, self._ceiling)


class Meter:
    """Averages a number of encoders over time, from the first one on."""

    def __init__(self) -> None:
        self._since = self._began = 0.0
        self._count, self._sum = 0, 0.0

    def set(self, count: int) -> None:
        """Say how many there are from now on."""
        now = time.monotonic()
        if not self._began and not count:
            return
        self._began = self._began or now
        self._sum += self._count * (now - (self._since or now))
        self._since, self._count = now, count

    @property
    def mean(self) -> float | None:
        """Their mean number since the first was there; None before."""
        now = time.monotonic()
        if not self._began or now == self._began:
            return None
        return (self._sum + self._count * (now - self._since)) / (now - self._began)
