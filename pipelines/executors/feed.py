"""Decide which rows to ask of which encoder: ahead of the scorer, in order, and within a budget of bytes.

    units, in the order in which they are scored
      └─ chunks: consecutive rows, each asked of one encoder in one call
           └─ a block each: what the encoder returns, at most so many bytes; if it has fewer rows than the chunk, the
              others become the next chunk

The scorer takes the blocks of the first unit in row order. No Ray and no threads here: :mod:`.feeder` has them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pipelines.executors.packing import PackedBlock
from pipelines.output.plan import Unit
from pipelines.run.encoding import BLOCK_BYTES, READ_ROWS

CALLS: Final = 2
"""Chunks that an encoder is asked for at a time: one at work and one waiting, so that the encoder never waits."""
FILL: Final = 2
"""A chunk is cut to a block's bytes ÷ this: rows differ, and a chunk should be one block."""
CHUNK_SECONDS: Final = 2.0
"""Seconds that a chunk should take at most: the scorer waits for whole chunks."""
FIRST_ROWS: Final = 4
"""Rows of the first chunks, while nothing is known about rows."""
_SMOOTHING: Final = 0.2


@dataclass(eq=False, slots=True)
class Chunk:
    """Rows ``start`` to ``stop`` (exclusive) of a unit.

    Attributes:
        nbytes: the bytes of its block; before that arrives, those expected.
        encoder: which one was asked; None if none is at the moment.
        block: what it returned.
        dropped: whether nobody waits for it any more.
    """

    unit: Unit
    start: int
    stop: int
    nbytes: int
    encoder: Hashable | None = None
    block: PackedBlock | None = None
    dropped: bool = False


@dataclass(eq=False, slots=True)
class _Fed:
    """A unit that is being fed: its chunks that were not taken yet, in row order, and the first row without a chunk."""

    unit: Unit
    next: int
    chunks: deque[Chunk] = field(default_factory=deque)


class Feed:
    """See the module. Not for several threads at a time.

    Args:
        bytes_ahead: bytes of blocks that may wait or be under way. Only what the scorer waits for may exceed it: at
            least one chunk is always asked for.
    """

    def __init__(self, bytes_ahead: int) -> None:
        self._bytes_ahead = bytes_ahead
        self._units: deque[_Fed] = deque()
        self._asked: dict[Hashable, deque[Chunk]] = {}  # by encoder, in the order in which it works on them
        self._row_bytes = BLOCK_BYTES / FILL / FIRST_ROWS
        self._row_seconds = 0.0
        self._known = False

    @property
    def first(self) -> Unit | None:
        """The unit whose turn it is."""
        return self._units[0].unit if self._units else None

    @property
    def encoders(self) -> list[Hashable]:
        """The encoders that can be asked."""
        return list(self._asked)

    @property
    def all_at_work(self) -> bool:
        """Whether every encoder is at work, and there is one."""
        return bool(self._asked) and all(self._asked.values())

    @property
    def bytes_held(self) -> int:
        """Bytes of blocks that wait, and those expected of chunks that were asked for."""
        return sum(chunk.nbytes for fed in self._units for chunk in fed.chunks)

    def add(self, unit: Unit) -> None:
        """Feed a unit after those that were added before."""
        self._units.append(_Fed(unit, unit.start))

    def remove(self, unit: Unit) -> None:
        """Let go of a unit and all that is encoded of it. Do nothing if it is not fed."""
        for fed in list(self._units):
            if fed.unit is unit:
                _drop(fed)
                self._units.remove(fed)

    def restart(self, unit: Unit) -> None:
        """Feed a unit from its first row again, and those behind it, whose blocks would take up the bytes it needs."""
        found = False
        for fed in self._units:
            found = found or fed.unit is unit
            if found:
                _drop(fed)
                fed.next = fed.unit.start

    def give_up(self, unit: Unit) -> None:
        """Ask for no more rows of a unit, which keeps its turn."""
        for fed in self._units:
            if fed.unit is unit:
                _drop(fed)
                fed.next = unit.stop

    def join(self, encoder: Hashable) -> None:
        """Let an encoder take part."""
        self._asked[encoder] = deque()

    def leave(self, encoder: Hashable) -> Chunk | None:
        """Drop an encoder; its chunks are asked of others.

        Return the chunk that it was working on; None if nobody waits for that, or it was idle.
        """
        chunks = self._asked.pop(encoder, deque())
        for chunk in chunks:
            chunk.encoder = None
        return next((chunk for chunk in list(chunks)[:1] if not chunk.dropped), None)

    def idle(self) -> Hashable | None:
        """Return an encoder that is not at work; None if there is none."""
        return next((encoder for encoder, chunks in self._asked.items() if not chunks), None)

    def asks(self) -> Iterator[Chunk]:
        """Yield the chunks to ask for now, each with its encoder."""
        while (encoder := self._least_asked()) is not None and (chunk := self._next_chunk()) is not None:
            chunk.encoder = encoder
            self._asked[encoder].append(chunk)
            yield chunk

    def arrive(self, chunk: Chunk, block: PackedBlock) -> None:
        """Take what an encoder returned for a chunk: its first rows, at least one."""
        if chunk.encoder in self._asked and chunk in self._asked[chunk.encoder]:
            self._asked[chunk.encoder].remove(chunk)
        self._learn(block)
        if chunk.dropped:
            return
        fed = next(fed for fed in self._units if fed.unit is chunk.unit)
        split = chunk.start + block.rows
        if split < chunk.stop:
            rest = Chunk(chunk.unit, split, chunk.stop, self._expected(chunk.stop - split))
            fed.chunks.insert(fed.chunks.index(chunk) + 1, rest)
            chunk.stop = split
        chunk.nbytes, chunk.block = block.nbytes, block

    def take(self, unit: Unit) -> PackedBlock | None:
        """Return the next block of the first unit; None if it is not there yet."""
        fed = self._units[0]
        if fed.unit is not unit:
            raise AssertionError(f"it is not the turn of unit {unit.id}")
        if not fed.chunks or fed.chunks[0].block is None:
            return None
        return fed.chunks.popleft().block

    def _least_asked(self) -> Hashable | None:
        encoder = min(self._asked, key=lambda one: len(self._asked[one]), default=None)
        return encoder if encoder is not None and len(self._asked[encoder]) < CALLS else None

    def _next_chunk(self) -> Chunk | None:
        """Return the first chunk that no encoder works on; a new one if the budget allows it."""
        for fed in self._units:
            for chunk in fed.chunks:
                if chunk.encoder is None and chunk.block is None:
                    return chunk
            if fed.next < fed.unit.stop:
                rows = min(self._chunk_rows(), fed.unit.stop - fed.next)
                needed = not fed.chunks and fed is self._units[0]
                if not needed and self.bytes_held + self._expected(rows) > self._bytes_ahead:
                    return None
                chunk = Chunk(fed.unit, fed.next, fed.next + rows, self._expected(rows))
                fed.next = chunk.stop
                fed.chunks.append(chunk)
                return chunk
        return None

    def _chunk_rows(self) -> int:
        if not self._known:
            return FIRST_ROWS
        # As many bytes may wait as are under way.
        share = self._bytes_ahead / (2 * CALLS * max(1, len(self._asked)))
        by_bytes = min(BLOCK_BYTES / FILL, share) / max(1.0, self._row_bytes)
        by_seconds = CHUNK_SECONDS / max(1e-6, self._row_seconds)
        return max(1, min(READ_ROWS, int(by_bytes), int(by_seconds)))

    def _expected(self, rows: int) -> int:
        return int(rows * self._row_bytes)

    def _learn(self, block: PackedBlock) -> None:
        row_bytes, row_seconds = block.nbytes / block.rows, sum(block.stages.values()) / block.rows
        weight = _SMOOTHING if self._known else 1.0
        self._row_bytes += weight * (row_bytes - self._row_bytes)
        self._row_seconds += weight * (row_seconds - self._row_seconds)
        self._known = True


def _drop(fed: _Fed) -> None:
    for chunk in fed.chunks:
        chunk.dropped = True
    fed.chunks.clear()
