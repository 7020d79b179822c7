"""Estimate the cost of a run: encode and score a few of its rows here, without storing anything."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.output.plan import Unit, spread_windows
from pipelines.run.captions import EncodedRow, TakenApart
from pipelines.run.encoding import encode_rows
from pipelines.run.engine import Engine, RowScorer
from pipelines.run.scoring import score_rows
from pipelines.sources import ReadRow, Source
from scorer.errors import BatchTooLargeError
from scorer.types import EncodedSample

WINDOWS: Final = 12
WINDOW_ROWS: Final = 8
"""Consecutive rows read at each of the :data:`WINDOWS` places in the dataset: 96 rows in all."""
SECONDS: Final = 20.0
"""Time limit for reading and encoding, and again for scoring without its first batch; after it, nothing more starts."""
_FIRST_ROWS: Final = 4


@dataclass(frozen=True, slots=True)
class SampledRow:
    """A row that was read and encoded as a run would."""

    shard: str
    row_index: int
    row: ReadRow
    encoded: EncodedRow

    @property
    def parts(self) -> list[EncodedSample]:
        """What the model would see: one entry per turn; empty for a row that fails."""
        return [part for part in TakenApart([self.encoded]) if isinstance(part, EncodedSample)]

    @property
    def text_only(self) -> bool:
        """Whether the row has no image; False for a row that fails."""
        return any(part.text_only for part in self.parts)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured, as means per row of the dataset.

    Attributes:
        rows: how many rows were sampled.
        failed: how many of them could not be encoded.
        tokens: scored tokens per row, of rows with images.
        input_tokens: input tokens of both branches per row, counting shared prefixes every time.
        encode_seconds: time to read and encode one row on one core.
        score_seconds: time to score one row on this machine's device; None if no row could be encoded.
        flops: FLOPs to score one row; None if the engine runs no model.
        text_only: how many of the sampled rows have no image.
    """

    rows: int
    failed: int
    tokens: float
    input_tokens: float
    encode_seconds: float
    score_seconds: float | None
    flops: float | None
    text_only: int = 0


def sample_rows(source: Source, units: Sequence[Unit], engine: Engine) -> tuple[list[SampledRow], float]:
    """Read and encode rows from all over the units. Return them with the seconds that this took.

    Raises:
        ConfigError, ModelError, RunError: as reading and encoding do.
    """
    encoder = engine.encoder()
    found: list[SampledRow] = []
    started = time.monotonic()
    for unit in spread_windows(units, WINDOWS, WINDOW_ROWS):
        rows = source.read(unit.shard, unit.start, unit.stop)
        encoded = encode_rows(rows, encoder)
        places = range(unit.start, unit.stop)
        found += [SampledRow(unit.shard.name, *one) for one in zip(places, rows, encoded, strict=True)]
        if time.monotonic() - started > SECONDS:
            break
    return found, time.monotonic() - started


def calibrate(
    rows: Sequence[SampledRow], encode_seconds: float, scorer: RowScorer, max_batch_tokens: int
) -> Calibration:
    """Score the sampled rows and average what was measured. The first batch is a warm-up and is not timed."""
    good = [row.encoded for row in rows if row.parts]
    parts = [part for row in rows for part in row.parts]
    count = max(1, len(rows))
    score_seconds, flops = (None, None) if not good else _score(good, scorer, max_batch_tokens)
    share = len(good) / count
    return Calibration(
        rows=len(rows),
        failed=len(rows) - len(good),
        tokens=sum(len(part.token_ids) for part in parts if not part.text_only) / count,
        input_tokens=sum(map(_input_tokens, parts)) / count,
        encode_seconds=encode_seconds / count,
        score_seconds=None if score_seconds is None else score_seconds * share,
        flops=None if not flops else flops * share,
        text_only=sum(row.text_only for row in rows),
    )


def _input_tokens(part: EncodedSample) -> int:
    return sum(len(branch.input_ids) for branch in (part.branches[1:] if part.text_only else part.branches))


def _score(rows: Sequence[EncodedRow], scorer: RowScorer, max_batch_tokens: int) -> tuple[float, float]:
    """Return seconds and FLOPs per row. Batches grow while there is time, because a run's batches are large."""
    count, left = min(_FIRST_ROWS, len(rows)), SECONDS
    max_batch_tokens = _score_in_memory(
        rows[:count], scorer, max_batch_tokens
    )  # loads kernels, checks the fast path, fills the cache of shared prefixes
    while True:
        started = time.monotonic()
        max_batch_tokens = _score_in_memory(rows[:count], scorer, max_batch_tokens)
        took = time.monotonic() - started
        left -= took
        if count == len(rows) or 4 * took > left:
            return took / count, _flops(rows[:count], scorer, max_batch_tokens) / count
        count = min(4 * count, len(rows))


def _score_in_memory(rows: Sequence[EncodedRow], scorer: RowScorer, max_batch_tokens: int) -> int:
    """Score rows in batches that fit in memory. Return the budget that they took."""
    while True:
        try:
            score_rows(rows, scorer, max_batch_tokens)
        except BatchTooLargeError as error:
            max_batch_tokens = error.smaller
        else:
            return max_batch_tokens


def _flops(rows: Sequence[EncodedRow], scorer: RowScorer, max_batch_tokens: int) -> int:
    if scorer.usage.tokens == 0:  # the engine runs no model
        return 0
    from scorer.forward.flops import count_flops

    return count_flops(lambda: score_rows(rows, scorer, max_batch_tokens))
