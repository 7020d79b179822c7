"""Compute the numbers that every display shows: how far a run is, how fast, and what limits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipelines.output.tally import Tally
from pipelines.run.executor import Workers

_ENCODERS: Final = ("read", "encode")
_SCORERS: Final = ("score", "write")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a run at one moment.

    Rates divide the rows scored by this process's workers by the time from the start of its first unit to the commit
    of its last: starting workers and loading models do not distort the estimate of the time left.

    Attributes:
        rows: rows of the dataset.
        before: rows committed by earlier processes.
        tally: what this process's workers have committed.
        workers: the current workers; None if not known yet.
    """

    rows: int
    before: int
    tally: Tally
    workers: Workers | None = None

    @property
    def done(self) -> int:
        """Rows committed so far, by any process."""
        return self.before + self.tally.rows

    @property
    def share(self) -> float:
        """Share of all rows that is committed, 0 to 1."""
        return self.done / self.rows if self.rows else 1.0

    @property
    def rows_per_second(self) -> float:
        return self._rate(self.tally.rows)

    @property
    def tokens_per_second(self) -> float:
        return self._rate(self.tally.tokens)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the last row; None before the first unit."""
        rate = self.rows_per_second
        return (self.rows - self.done) / rate if rate else None

    @property
    def busy(self) -> Mapping[str, float]:
        """Share of its workers' time that each stage takes, 0 to 1, by stage."""
        if self.workers is None or self.tally.seconds <= 0:
            return {}
        encoders = self.workers.mean_encoders or self.workers.encoders
        counts: dict[str, float] = dict.fromkeys(_ENCODERS, encoders)
        counts |= dict.fromkeys(_SCORERS, self.workers.scorers)
        return {
            stage: min(1.0, self.tally.stages.get(stage, 0.0) / (count * self.tally.seconds))
            for stage, count in counts.items()
        }

    @property
    def limit(self) -> str | None:
        """The stage that limits the run: the longer of the two stages of the busier pool of workers."""
        busy = self.busy
        if not any(busy.values()):
            return None
        pools = [_ENCODERS + _SCORERS] if self.workers and self.workers.shared else [_ENCODERS, _SCORERS]
        busiest = max(pools, key=lambda pool: sum(busy[stage] for stage in pool))
        return max(busiest, key=lambda stage: busy[stage])

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain data."""
        return {
            "rows": self.rows,
            "rows_done": self.done,
            "rows_done_here": self.tally.rows,
            "rows_failed_here": self.tally.failed,
            "rows_text_only_here": self.tally.text_only,
            "tokens_here": self.tally.tokens,
            "rows_per_second": self.rows_per_second,
            "tokens_per_second": self.tokens_per_second,
            "seconds_left": self.seconds_left,
            "actors": None if self.workers is None else self.workers.scorers,
            "actors_alive": None if self.workers is None else self.workers.alive,
            "encoders": None if self.workers is None else self.workers.encoders,
            "busy": dict(self.busy),
            "limited_by": self.limit,
        }

    def _rate(self, count: int) -> float:
        return count / self.tally.seconds if self.tally.seconds > 0 else 0.0
