"""Read and encode rows in blocks, so that what waits or travels stays small, whatever a unit is.

Rows of large images take megabytes each: a unit of 4,096 of them would be 24 GB. A block is as many neighbouring rows
as take at most :data:`BLOCK_BYTES`. Scores do not depend on where blocks begin and end.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.output.plan import Unit
from pipelines.run.captions import EncodedCaptions, EncodedRow, encode_row
from pipelines.run.engine import RowEncoder
from pipelines.run.trials import Trials
from pipelines.sources import ReadRow, Shard, Source
from pipelines.sources.rows import own_error
from scorer.errors import FailureCode, RunError
from scorer.results import Failure
from scorer.types import EncodedSample

log = logging.getLogger(__name__)

BLOCK_BYTES: Final = 64_000_000
"""Bytes of a block's arrays, at most; a row that has more is a block by itself."""
READ_ROWS: Final = 64
"""Rows that are read at a time, at most: as encoded images, they wait to be decoded."""
WHO: Final = "the encoder"
_RESTS: Final = 2
"""Blocks whose rest is kept: an encoder may be asked for other rows in between."""


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring rows of a unit, encoded.

    Attributes:
        rows: at least one.
        nbytes: bytes of their arrays; what several rows share counts once.
        stages: seconds that reading and encoding them took, by stage.
        trials: the rows that the encoder was given.
    """

    rows: list[EncodedRow]
    nbytes: int
    stages: Mapping[str, float]
    trials: Trials


@dataclass(slots=True)
class _Rest:
    """Rows that were read for a block and did not fit in it; the first one may be encoded already."""

    rows: deque[ReadRow]
    first: tuple[EncodedRow, Trials] | None = None


class BlockEncoder:
    """Reads and encodes rows of a source in blocks. Keeps what it has read beyond a block for the call that follows."""

    def __init__(self, source: Source, encoder: RowEncoder) -> None:
        self._source = source
        self._encoder = encoder
        self._rests: OrderedDict[tuple[Shard, int], _Rest] = OrderedDict()  # by shard and number of the first row

    def block(self, shard: Shard, start: int, stop: int) -> Block:
        """Return the rows from ``start`` on: those up to ``stop`` (exclusive) if they fit in a block, else fewer.

        Raises:
            RunError: the source returned more or fewer rows than asked for.
            Exception: what is the run's and not a row's, by :func:`pipelines.sources.rows.own_error`.
        """
        started = time.monotonic()
        rest = self._rests.pop((shard, start), None) or _Rest(self._read(shard, start, stop))
        read = time.monotonic()
        rows: list[EncodedRow] = []
        seen: set[int] = set()
        nbytes, trials = 0, Trials()
        while rest.rows and start + len(rows) < stop:
            row, trial = rest.first or _try_row(rest.rows[0], self._encoder)
            size = _new_bytes(row, seen)
            if rows and nbytes + size > BLOCK_BYTES:
                rest.first = row, trial
                break
            rows.append(row)
            nbytes, trials = nbytes + size, trials + trial
            rest.rows.popleft()
            rest.first = None
        if rest.rows:
            self._rests[shard, start + len(rows)] = rest
            if len(self._rests) > _RESTS:
                self._rests.popitem(last=False)
        return Block(rows, nbytes, {"read": read - started, "encode": time.monotonic() - read}, trials)

    def _read(self, shard: Shard, start: int, stop: int) -> deque[ReadRow]:
        rows = self._source.read(shard, start, stop)
        if len(rows) != stop - start:
            raise RunError(
                f"rows {start} to {stop} of shard {shard.name}: {stop - start} rows asked for, {len(rows)} read"
            )
        return deque(rows)


class EncodedUnit:
    """A unit's encoded rows, in order, read and encoded as they are iterated over, and again by each iteration.

    Args:
        known: failures of rows that must not be touched again, by row number.

    Attributes:
        stages: seconds by stage so far, all iterations together.

    Iterating raises what :meth:`BlockEncoder.block` raises, and RunError if the encoder raised on each of several rows.
    """

    def __init__(
        self, source: Source, unit: Unit, encoder: RowEncoder, known: Mapping[int, Failure] | None = None
    ) -> None:
        self._source, self._unit, self._encoder = source, unit, encoder
        self._known = dict(known or {})
        self.stages: dict[str, float] = {}

    def __iter__(self) -> Iterator[EncodedRow]:
        blocks = BlockEncoder(self._source, self._encoder)
        trials = Trials()
        at = self._unit.start
        for row_index in (*sorted(self._known), self._unit.stop):
            while at < row_index:
                block = blocks.block(self._unit.shard, at, min(at + READ_ROWS, row_index))
                add_seconds(self.stages, block.stages)
                trials += block.trials
                at += len(block.rows)
                yield from block.rows
            if row_index in self._known:
                yield self._known[row_index]
            at = row_index + 1
        trials.check(WHO)


def encode_rows(rows: Sequence[ReadRow], encoder: RowEncoder) -> list[EncodedRow]:
    """Encode rows. If the encoder raises on a row, which it should not, only that row fails.

    Raises:
        Exception: what is the run's and not a row's, by :func:`pipelines.sources.rows.own_error`.
        RunError: the encoder raised on each of several rows.
    """
    encoded: list[EncodedRow] = []
    trials = Trials()
    for row in rows:
        one, trial = _try_row(row, encoder)
        encoded.append(one)
        trials += trial
    trials.check(WHO)
    return encoded


def add_seconds(total: dict[str, float], more: Mapping[str, float]) -> None:
    """Add seconds by stage."""
    for stage, seconds in more.items():
        total[stage] = total.get(stage, 0.0) + seconds


def _try_row(row: ReadRow, encoder: RowEncoder) -> tuple[EncodedRow, Trials]:
    if isinstance(row, Failure):
        return row, Trials()
    try:
        return encode_row(row, encoder), Trials.of(row.sample_id, None)
    except Exception as error:
        own = own_error(error, WHO, FailureCode.SCORING_FAILED)
        log.warning("row %s: %s", row.sample_id, own.message)
        return Failure(row.sample_id, own.code, own.message), Trials.of(row.sample_id, error)


def _new_bytes(row: EncodedRow, seen: set[int]) -> int:
    """Return the bytes of a row's arrays that are not among those seen, and add them to these."""
    if isinstance(row, Failure):
        return 0
    samples: Sequence[EncodedSample] = (
        [sample for _, sample in row.parts] if isinstance(row, EncodedCaptions) else [row]
    )
    total = 0
    for sample in samples:
        for branch in sample.branches:
            for array in (branch.input_ids, branch.attend, branch.label_index, *branch.pixels.values()):
                if id(array) not in seen:
                    seen.add(id(array))
                    total += array.nbytes
    return total
