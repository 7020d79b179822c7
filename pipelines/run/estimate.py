"""What a run would cost, from a few of its rows that are encoded and scored here, and not stored."""

from __future__ import annotations

import bisect
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.output.plan import Unit
from pipelines.run.captions import EncodedRow, take_apart
from pipelines.run.engine import Engine, RowScorer
from pipelines.run.score_unit import encode_rows, score_rows
from pipelines.sources import ReadRow, Source
from scorer.types import EncodedSample

WINDOWS: Final = 12
WINDOW_ROWS: Final = 8
"""Rows that are read together, at each of so many places of the dataset: 96 rows."""
SECONDS: Final = 20.0
"""Reading and encoding begin nothing more when they have taken so long, nor does scoring, its first batch left out."""
_FIRST_ROWS: Final = 4


@dataclass(frozen=True, slots=True)
class SampledRow:
    """A row as it would be scored."""

    shard: str
    row_index: int
    row: ReadRow
    encoded: EncodedRow

    @property
    def parts(self) -> list[EncodedSample]:
        """What the model would see: one per turn; none of a row that fails."""
        return [part for part in take_apart([self.encoded]) if isinstance(part, EncodedSample)]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured, per row of the dataset.

    Attributes:
        rows: how many were encoded.
        failed: how many of them cannot be.
        tokens: scored tokens per row.
        input_tokens: tokens of both branches per row, as they are written, shared prefixes counted each time.
        encode_seconds: reading and encoding one row, on one core.
        score_seconds: scoring one row, on this machine's device; None where no row could be encoded.
        flops: of scoring one row; None where the engine runs none.
    """

    rows: int
    failed: int
    tokens: float
    input_tokens: float
    encode_seconds: float
    score_seconds: float | None
    flops: float | None


def sample_rows(source: Source, units: Sequence[Unit], engine: Engine) -> tuple[list[SampledRow], float]:
    """Rows from all over the units, encoded; and the seconds that this took.

    Raises:
        ConfigError, ModelError, RunError: as reading and encoding do.
    """
    encoder = engine.encoder()
    found: list[SampledRow] = []
    started = time.monotonic()
    for unit in _windows(units):
        rows = source.read(unit.shard, unit.start, unit.stop)
        encoded = encode_rows(rows, encoder)
        places = range(unit.start, unit.stop)
        found += [SampledRow(unit.shard.name, *one) for one in zip(places, rows, encoded, strict=True)]
        if time.monotonic() - started > SECONDS:
            break
    return found, time.monotonic() - started


def calibrate(rows: Sequence[SampledRow], encode_seconds: float, scorer: RowScorer) -> Calibration:
    """Score the sampled rows. The first batch, which warms up, is left out of the time."""
    good = [row.encoded for row in rows if row.parts]
    parts = [part for row in rows for part in row.parts]
    count = max(1, len(rows))
    score_seconds, flops = (None, None) if not good else _score(good, scorer)
    share = len(good) / count
    return Calibration(
        rows=len(rows),
        failed=len(rows) - len(good),
        tokens=sum(len(part.token_ids) for part in parts) / count,
        input_tokens=sum(len(part.clean.input_ids) + len(part.contrast.input_ids) for part in parts) / count,
        encode_seconds=encode_seconds / count,
        score_seconds=None if score_seconds is None else score_seconds * share,
        flops=None if not flops else flops * share,
    )


def _score(rows: Sequence[EncodedRow], scorer: RowScorer) -> tuple[float, float]:
    """Seconds and FLOPs of one row, by batches that grow while there is time: larger ones are what a run has."""
    count, left = min(_FIRST_ROWS, len(rows)), SECONDS
    score_rows(rows[:count], scorer)  # loads kernels, checks the fast path, fills the cache of shared prefixes
    while True:
        started = time.monotonic()
        score_rows(rows[:count], scorer)
        took = time.monotonic() - started
        left -= took
        if count == len(rows) or 4 * took > left:
            return took / count, _flops(rows[:count], scorer) / count
        count = min(4 * count, len(rows))


def _flops(rows: Sequence[EncodedRow], scorer: RowScorer) -> int:
    if scorer.usage.tokens == 0:  # no model has run
        return 0
    from scorer.forward.flops import count_flops

    return count_flops(lambda: score_rows(rows, scorer))


def _windows(units: Sequence[Unit]) -> Iterator[Unit]:
    """Stretches of a few rows at equal distances, none of which crosses its unit's end."""
    ends = list(itertools.accumulate(unit.rows for unit in units))
    count = min(WINDOWS, ends[-1])
    free = 0  # rows before it are taken
    for k in range(count):
        place = max(free, k * ends[-1] // count)
        at = bisect.bisect_right(ends, place)
        if at == len(units):
            return
        unit = units[at]
        place = max(free, ends[at] - unit.rows, min(place, ends[at] - WINDOW_ROWS))
        start = unit.stop - (ends[at] - place)
        stop = min(start + WINDOW_ROWS, unit.stop)
        free = place + stop - start
        yield Unit(f"{unit.id}+{start}", unit.shard, start, stop)
