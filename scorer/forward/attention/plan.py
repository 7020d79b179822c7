"""Say which tokens of a packed batch attend to which, in a few integers per key. Numpy only.

A batch is a forest laid end to end in depth-first order, so a segment's descendants follow it without a gap:

    index    0 1 2 3 4 5 6 7 8 9
    segment  A A A B B C C D D D      B and C continue A; D is a tree of its own
    since    0 1 2 3 4 5 6 7 8 9      a causal key is seen from its own place on,
    until    7 7 7 5 5 7 7 . . .      up to the end of what continues its segment

    query q attends to key k   ⇔   since[k] ≤ q < until[k]

Keys that see each other in both directions (a block: the tokens of an image in Gemma 3, the prompt in PaliGemma) are
seen from the block's start on. A sliding window counts places in a key's own row, so each key also has its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from scorer.types import BoolArray, Int32Array

CHUNK: Final = 256
"""The most queries of short segments that share one call of attention by segments: enough to fill a matrix product, and
few enough that most of the pairs that are computed are allowed."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """Queries that attend to the same few ranges of keys.

    Attributes:
        queries: half-open range of queries.
        keys: half-open ranges of keys, ascending; the queries attend to no other key.
        causal: whether query i of n attends to the first i + 1 keys, of n in all; otherwise the plan's rule decides.
    """

    queries: tuple[int, int]
    keys: tuple[tuple[int, int], ...]
    causal: bool


@dataclass(frozen=True, slots=True)
class Span:
    """One segment of the layout.

    Attributes:
        start, stop: half-open range of its tokens, in the batch.
        end: where what continues it ends.
        parent: the number of the segment that it continues; -1 if there is none in the batch.
        kept: half-open range of the keys before the batch's own that it also continues; empty if there are none.
    """

    start: int
    stop: int
    end: int
    parent: int
    kept: tuple[int, int] = (0, 0)


class AttentionPlan:
    """The attention of one packed batch of N queries and K ≥ N keys; the last N keys are the queries' own.

    The K − N keys before them are kept from an earlier batch.

    Attributes:
        since, until: int32 [K]; key k is seen by the queries since[k] … until[k] − 1.
        places: int32 [K], each key's place in its own row: a sliding window counts places.
        blocks: int32 [K], numbers of blocks, unique in the batch; -1 for a causal key.
        spans: the segments in depth-first order.
        blocks_ignore_window: whether keys of one block see each other beyond a sliding window, too.
    """

    def __init__(
        self,
        since: Int32Array,
        until: Int32Array,
        places: Int32Array,
        blocks: Int32Array,
        spans: Sequence[Span],
        queries: int,
        blocks_ignore_window: bool = False,
    ) -> None:
        self.since, self.until, self.places, self.blocks = since, until, places, blocks
        self.spans = tuple(spans)
        self.queries = queries
        self.blocks_ignore_window = blocks_ignore_window

    @property
    def keys(self) -> int:
        """The number of keys, K."""
        return len(self.since)

    @property
    def kept(self) -> int:
        """The number of keys before the batch's own, K − N."""
        return self.keys - self.queries

    @classmethod
    def of_lengths(cls, lengths: Sequence[int]) -> AttentionPlan:
        """Return the plan of sequences end to end, each of which sees itself whole (a vision tower's windows)."""
        sizes = np.asarray(lengths, dtype=np.int32)
        stops = np.cumsum(sizes, dtype=np.int32)
        starts = stops - sizes
        spans = [Span(int(a), int(b), int(b), -1) for a, b in zip(starts, stops, strict=True)]
        number = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        places = np.arange(int(sizes.sum()), dtype=np.int32)
        return cls(np.repeat(starts, sizes), np.repeat(stops, sizes), places, number, spans, len(places))

    def limit(self, window: int | None) -> int | None:
        """Return ``window``, or None if no row is long enough for it to hide a key."""
        return window if window is not None and int(self.places.max(initial=0)) >= window else None

    def mask(self, call: Call, window: int | None) -> BoolArray:
        """Return which keys of a call each of its queries attends to, bool [queries, keys]."""
        at = np.concatenate([np.arange(a, b) for a, b in call.keys])
        queries = np.arange(*call.queries)[:, None]
        allowed = (self.since[at] <= queries) & (queries < self.until[at])
        if window is not None:
            own = np.arange(*call.queries) + self.kept
            near = self.places[own][:, None] - self.places[at] < window
            if self.blocks_ignore_window:
                near |= (self.blocks[own][:, None] == self.blocks[at]) & (self.blocks[at] >= 0)
            allowed &= near
        return np.asarray(allowed, dtype=np.bool_)

    @cached_property
    def calls(self) -> list[Call]:
        """The batch's attention in calls over few keys each, in the order of their queries.

        A tree's trunk, up to where it branches, is one call. Its branches are cut between segments into calls of about
        :data:`CHUNK` queries.
        """
        calls: list[Call] = []
        children: list[list[int]] = [[] for _ in self.spans]
        roots: list[int] = []
        for i, span in enumerate(self.spans):
            (roots if span.parent < 0 else children[span.parent]).append(i)
        for root in roots:
            trunk = root
            while len(children[trunk]) == 1:
                trunk = children[trunk][0]
            start, stop = self.spans[root].start, self.spans[trunk].stop
            if start < stop:
                kept, own = self.spans[root].kept, (start + self.kept, stop + self.kept)
                calls.append(Call((start, stop), _joined([kept, own]), kept[0] == kept[1] and self._causal(*own)))
            calls += self._chunks(trunk + 1, self.spans[root].end)
        return calls

    def _causal(self, start: int, stop: int) -> bool:
        """Whether each of these keys is seen by all queries from its own place on."""
        keys = slice(start, stop)
        own = np.arange(start, stop) - self.kept
        return bool((self.since[keys] == own).all() and (self.until[keys] >= stop - self.kept).all())

    def _chunks(self, first: int, end: int) -> list[Call]:
        """Return the calls of the segments from number ``first`` up to where index ``end`` is reached."""
        calls: list[Call] = []
        while first < len(self.spans) and self.spans[first].start < end:
            last = first
            while (
                last + 1 < len(self.spans)
                and self.spans[last + 1].stop <= end
                and self.spans[last + 1].stop - self.spans[first].start <= CHUNK
            ):
                last += 1
            queries = (self.spans[first].start, self.spans[last].stop)
            ranges = [(queries[0] + self.kept, queries[1] + self.kept)]
            for i in range(first, last + 1):
                ranges += self._ancestors(i)
            calls.append(Call(queries, _joined(ranges), False))
            first = last + 1
        return calls

    def _ancestors(self, number: int) -> list[tuple[int, int]]:
        ranges = []
        while number >= 0:
            span = self.spans[number]
            ranges += [(span.start + self.kept, span.stop + self.kept), span.kept]
            number = span.parent
        return ranges


def _joined(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the union of half-open ranges as disjoint ranges in ascending order."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(one for one in ranges if one[0] < one[1]):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return tuple(joined)
