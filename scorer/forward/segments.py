"""Cut rows into segments, so that rows with equal beginnings share them: a forest of segments.

    image A, prompt ──┬── caption A1        blank, prompt ──┬── caption A1 (contrast)
                      └── caption A2                        ├── caption A2 (contrast)
    image B, prompt ───── caption B1                        └── caption B1 (contrast)

A row is a path from a root to a leaf. Segments are equal if their tokens, positions, places and pixels are, and what
precedes them is the same segment.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from scorer.forward.attention import AttentionPlan, Keys, Span
from scorer.forward.model import ForwardRow
from scorer.types import Int64Array


@dataclass(frozen=True, slots=True, eq=False)
class KeptSegment:
    """What a root of P tokens leaves for rows of later batches.

    Attributes:
        layers: keys and values by layer, [1, H', P, D] each.
        last_hidden: [D], the state that predicts the token after it.
    """

    layers: Sequence[Keys]
    last_hidden: Tensor

    @property
    def nbytes(self) -> int:
        """The device memory that it holds, in bytes."""
        return sum(one.nbytes for layer in self.layers for one in layer)


@dataclass(eq=False, slots=True)
class Segment:
    """Tokens ``start`` … ``stop`` − 1 of a row; a root if ``start`` is 0.

    It does not know what precedes it: such a cycle would keep its images until the next garbage collection.

    Attributes:
        row: a row that it is cut from; other rows may share it.
        children: what continues it, by key.
        key: identifies a root among all rows of a model, and a child among its siblings.
        kept: its keys and values from an earlier batch; it is then not run again. Roots only.
    """

    row: ForwardRow
    start: int
    stop: int
    key: bytes
    children: dict[bytes, Segment] = field(default_factory=dict)
    kept: KeptSegment | None = None

    @property
    def length(self) -> int:
        """The number of tokens to run."""
        return 0 if self.kept is not None else self.stop - self.start


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """A row as segments, from root to leaf."""

    row: ForwardRow
    segments: tuple[Segment, ...]

    @property
    def root(self) -> Segment:
        """The segment that holds the row's pixels, if it has any."""
        return self.segments[0]

    @property
    def length(self) -> int:
        """The number of tokens to run if it shares none."""
        return sum(segment.length for segment in self.segments)


class Forest:
    """The segments of the rows that wait for a forward pass."""

    def __init__(self) -> None:
        self.roots: dict[bytes, Segment] = {}

    def add(self, row: ForwardRow, cuts: Iterable[int]) -> Path:
        """Return a row's path; tokens from its last label on predict no label and are left out.

        Args:
            row: the row.
            cuts: places where it may be cut; a cut does not change its scores.
        """
        end = int(row.label_index[-1])
        places = [0, *sorted({cut for cut in cuts if 0 < cut < end}), end]
        segments: list[Segment] = []
        siblings = self.roots
        for start, stop in itertools.pairwise(places):
            key = _key(row, start, stop)
            segment = siblings.get(key)
            if segment is None:
                segment = siblings[key] = Segment(row, start, stop, key)
            segments.append(segment)
            siblings = segment.children
        return Path(row, tuple(segments))

    def drop(self, root: Segment) -> None:
        """Forget a tree; rows that come later start another one."""
        self.roots.pop(root.key, None)


def cuts_of(row: ForwardRow, image_token_id: int, whole_prefix: bool) -> list[int]:
    """Return where a row may be cut: after its last image, and before its first label.

    Rows with the same prompt share both segments; rows with different prompts can still share the first. There is no
    cut if an image follows a label, because its features would belong after the cut.

    Args:
        whole_prefix: whether a row may only be cut before its first label.
    """
    first_label = int(row.label_index[0])
    images = np.flatnonzero(row.ids == image_token_id)
    after_images = int(images[-1]) + 1 if len(images) else 0
    if after_images > first_label:
        return []
    return [first_label] if whole_prefix else [after_images, first_label]


def _key(row: ForwardRow, start: int, stop: int) -> bytes:
    """Return a key over tokens, positions, places, what is hidden and, for the beginning of a row, its pixels."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update((stop - start).to_bytes(8, "little"))
    digest.update(row.ids[start:stop].tobytes())
    digest.update(row.positions[:, start:stop].tobytes())
    digest.update(row.places[start:stop].tobytes())
    digest.update(row.attend[start:stop].tobytes())
    if start == 0:
        digest.update(row.pixels_digest)
    return digest.digest()


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Paths laid end to end, segments in depth-first order.

    Attributes:
        segments: the segments that run, in order; those of a kept root only after it.
        ids: int64 [N].
        positions: int64 [A, N].
        plan: who attends to whom.
        reads: for each path, int64 [N_b]: where the states that predict its labels are. −1 − k means the state after
            the k-th kept root.
        kept: the kept roots, in order.
        starts: where each root that runs starts, by key.
    """

    segments: Sequence[Segment]
    ids: Int64Array
    positions: Int64Array
    plan: AttentionPlan
    reads: Sequence[Int64Array]
    kept: Sequence[KeptSegment]
    starts: dict[bytes, tuple[int, int]]


def lay_out(paths: Sequence[Path], size: int | None = None, blocks_ignore_window: bool = False) -> Layout:
    """Lay paths out in one row of tokens.

    Args:
        paths: the paths; they may share segments.
        size: the number of tokens to fill up to, with a segment that nothing reads; None for none.
        blocks_ignore_window: see :class:`AttentionPlan`.
    """
    wanted = {id(segment) for path in paths for segment in path.segments}
    roots = list({id(path.root): path.root for path in paths}.values())
    order: list[Segment] = []
    kept: list[KeptSegment] = []
    kept_rows: list[ForwardRow] = []
    spans: list[Span] = []
    bases: dict[int, int] = {}
    at = 0
    kept_at = 0

    def visit(segment: Segment, parent: int) -> None:
        nonlocal at, kept_at
        number = len(spans)
        bases[id(segment)] = start = at
        before = (0, 0)
        if segment.kept is not None:
            before = (kept_at, kept_at + segment.stop - segment.start)
            kept_at = before[1]
            bases[id(segment)] = -1 - len(kept)
            kept.append(segment.kept)
            kept_rows.append(segment.row)
        at += segment.length
        stop = at
        order.append(segment)
        spans.append(Span(start, stop, stop, parent, before))
        for child in segment.children.values():
            if id(child) in wanted:
                visit(child, number)
        spans[number] = Span(start, stop, at, parent, before)

    for root in roots:
        visit(root, -1)
    dead = max(0 if at else 1, (size or at) - at)  # a batch of kept roots only would have no tokens
    running = [(segment, span) for segment, span in zip(order, spans, strict=True) if span.start < span.stop]
    axes = len(paths[0].row.positions)
    ids = np.concatenate([np.empty(0, np.int64), *(s.row.ids[s.start : s.stop] for s, _ in running)])
    positions = np.concatenate(
        [np.empty((axes, 0), np.int64), *(s.row.positions[:, s.start : s.stop] for s, _ in running)], 1
    )
    plan = _plan(order, spans, kept_at, at, dead, blocks_ignore_window)
    if dead:
        # A label is text, so the class expects no image for it.
        ids = np.concatenate([ids, np.full(dead, paths[0].row.ids[paths[0].row.label_index[0]])])
        positions = np.concatenate([positions, np.tile(np.arange(dead), (axes, 1))], 1)
    return Layout(
        segments=[segment for segment, _ in running],
        ids=ids,
        positions=positions,
        plan=plan,
        reads=[_reads(path, bases) for path in paths],
        kept=kept,
        starts={root.key: (bases[id(root)], bases[id(root)] + root.length) for root in roots if root.kept is None},
    )


def _reads(path: Path, bases: dict[int, int]) -> Int64Array:
    """Return where the states before a path's labels are: a label at place p is predicted by the state at p − 1."""
    before = path.row.label_index - 1
    found = np.empty(len(before), dtype=np.int64)
    for segment in path.segments:
        inside = (segment.start <= before) & (before < segment.stop)
        base = bases[id(segment)]
        if segment.kept is None:
            found[inside] = base + before[inside] - segment.start
        else:
            assert (before[inside] == segment.stop - 1).all(), "only the last state of a kept segment is kept"
            found[inside] = base
    return found


def _plan(
    order: Sequence[Segment], spans: Sequence[Span], kept: int, tokens: int, dead: int, blocks_ignore_window: bool
) -> AttentionPlan:
    keys, queries = kept + tokens + dead, tokens + dead
    since = np.empty(keys, dtype=np.int32)
    until = np.empty(keys, dtype=np.int32)
    places = np.empty(keys, dtype=np.int32)
    blocks = np.full(keys, -1, dtype=np.int32)
    number = 0
    for segment, span in zip(order, spans, strict=True):
        # What is kept was computed whole, and all that continues it sees all of it.
        own = slice(*span.kept) if segment.kept is not None else slice(kept + span.start, kept + span.stop)
        row, tokens_of = segment.row, slice(segment.start, segment.stop)
        places[own] = row.places[tokens_of]
        until[own] = span.end
        since[own] = span.start if segment.kept is not None else np.arange(span.start, span.stop)
        # A hidden token is seen by itself alone: with no key at all, its state would be NaN.
        hidden = ~row.attend[tokens_of]
        until[own][hidden] = since[own][hidden] + (segment.kept is None)
        if row.blocks is not None and segment.kept is None:
            of = row.blocks[tokens_of]
            for block in np.unique(of[of >= 0]):
                members = np.flatnonzero((of == block) & row.attend[tokens_of])
                if not len(members):
                    continue
                since[own][members] = span.start + members[0]
                blocks[own][members] = number
                number += 1
    if dead:
        own = slice(kept + tokens, keys)
        since[own], until[own] = np.arange(tokens, queries), queries
        places[own] = np.arange(dead)
        spans = [*spans, Span(tokens, queries, queries, -1)]
    return AttentionPlan(since, until, places, blocks, spans, queries, blocks_ignore_window)
