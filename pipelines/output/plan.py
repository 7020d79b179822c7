"""Cut shards into units: contiguous row ranges of one shard, the grain of scoring, committing and resuming.

The plan depends only on the shards and the unit size, and a shard's units depend only on that shard: adding shards to
a dataset leaves the units of the others unchanged.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.sources import Shard
from scorer.errors import ConfigError

DEFAULT_ROWS_PER_UNIT: Final = 256


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows ``start`` to ``stop`` (exclusive) of ``shard``.

    ``id`` names the unit's marker. The same rows of the same content have the same id in every process.
    """

    id: str
    shard: Shard
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """A shard and all its units, in row order; none for a shard without rows.

    ``key`` is its :func:`shard_key`, computed once because a run uses it many times.
    """

    key: str
    shard: Shard
    units: tuple[Unit, ...]


def shard_key(shard: Shard) -> str:
    """Return ``<name>-<content>``, two digests: a changed shard keeps the first and changes the second.

    A listing of the markers therefore shows that a shard changed, without reading any of them.
    """
    return f"{_digest(shard.name)}-{_digest(json.dumps(shard.identity(), sort_keys=True))}"


def plan(shards: Iterable[Shard], rows_per_unit: int) -> list[ShardPlan]:
    """Cut every shard into units of ``rows_per_unit`` rows; the last unit of a shard may be shorter.

    Raises:
        ConfigError: ``rows_per_unit`` is below 1.
    """
    if rows_per_unit < 1:
        raise ConfigError(f"--rows-per-unit is {rows_per_unit}; it must be 1 or more")
    return [_plan_shard(shard, rows_per_unit) for shard in shards]


def spread_windows(units: Sequence[Unit], windows: int, rows: int) -> Iterator[Unit]:
    """Yield up to ``windows`` windows of up to ``rows`` rows, at equal distances over the units' rows.

    No window crosses the end of its unit, and none overlaps another.
    """
    ends = list(itertools.accumulate(unit.rows for unit in units))
    count = min(windows, ends[-1])
    free = 0  # the first row that is in no window yet
    for k in range(count):
        place = max(free, k * ends[-1] // count)
        at = bisect.bisect_right(ends, place)
        if at == len(units):
            return
        unit = units[at]
        place = max(free, ends[at] - unit.rows, min(place, ends[at] - rows))
        start = unit.stop - (ends[at] - place)
        stop = min(start + rows, unit.stop)
        free = place + stop - start
        yield Unit(f"{unit.id}+{start}", unit.shard, start, stop)


def _plan_shard(shard: Shard, rows_per_unit: int) -> ShardPlan:
    key = shard_key(shard)
    ranges = [(start, min(start + rows_per_unit, shard.rows)) for start in range(0, shard.rows, rows_per_unit)]
    units = (Unit(f"{key}-{start}-{stop}", shard.part(start, stop), start, stop) for start, stop in ranges)
    return ShardPlan(key, shard.unindexed(), tuple(units))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
