"""Choose rows from all over a dataset and read them as samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.output.plan import DEFAULT_ROWS_PER_UNIT, plan, spread_windows
from pipelines.sources import Captions, Source
from scorer.results import Failure
from scorer.types import Sample

WINDOW_ROWS: Final = 8
"""Consecutive rows read at each place: a remote file is read in few requests."""


@dataclass(frozen=True, slots=True)
class ChosenRows:
    """Rows of a dataset as samples. Of a row with several captions, the first is taken.

    Attributes:
        rows: how many rows the dataset has.
        unread: how many of the chosen rows could not be read, by the failure's code.
    """

    rows: int
    samples: Sequence[Sample]
    unread: dict[str, int]


def choose_rows(source: Source, count: int) -> ChosenRows:
    """Read ``count`` rows in windows at equal distances; all rows if there are no more. The choice is always the same.

    Raises:
        ConfigError, RunError, OSError: as the source does.
    """
    units = [unit for planned in plan(source.shards(), DEFAULT_ROWS_PER_UNIT) for unit in planned.units]
    samples: list[Sample] = []
    unread: Counter[str] = Counter()
    left = count
    for window in spread_windows(units, -(-count // WINDOW_ROWS), WINDOW_ROWS) if units else ():
        for row in source.read(window.shard, window.start, window.stop)[:left]:
            left -= 1
            if isinstance(row, Failure):
                unread[row.code.value] += 1
            else:
                samples.append(row.sample(0) if isinstance(row, Captions) else row)
    return ChosenRows(sum(unit.rows for unit in units), samples, dict(unread))
