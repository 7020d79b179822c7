"""Decide which other row's images a row is compared with under the contrast ``shuffled``.

Rows are divided into groups of neighbours, by their numbers in the shard, or in the list given to ``Scorer.score``.
Within a group, the distinct images stand in a circle, in an order that follows from the seed and their bytes alone, and
each is replaced by the next, so that none stays in place. The row that gives its images is the partner. Several
captions of one image are compared with the same other one. So a row's partner follows from the data and the seed, not
from units, blocks or processes, and encoding a row takes reading at most its group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from scorer.types import ImageSource

GROUP_ROWS: Final = 64
"""Rows of a group. The last one of a shard has 32 to 95, or all rows if these are fewer."""

Images = tuple[ImageSource, ...]
"""A row's images."""


def group_of(row_index: int, rows: int) -> range:
    """Return the group of a row among ``rows`` rows."""
    last = max(1, (rows + GROUP_ROWS // 2) // GROUP_ROWS) - 1
    start = min(row_index // GROUP_ROWS, last) * GROUP_ROWS
    return range(start, rows if start == last * GROUP_ROWS else start + GROUP_ROWS)


def find_partners(
    images: Sequence[Images], digests: Sequence[tuple[bytes, ...] | None], seed: int
) -> list[tuple[Images, ...]]:
    """Return, for each row of a group, the other rows' images that it may be compared with, in the order to try them.

    A partner has as many images as the row, and none in common with it.

    Args:
        images: each row's images.
        digests: the digests of each row's images; None for a row that takes no part, since it has no image, or one that
            cannot be read.
        seed: decides the order.
    """
    places = {
        each: hashlib.blake2b(b"".join([f"{seed} ".encode(), *each]), digest_size=16).digest()
        for each in digests
        if each
    }
    circle = sorted(places, key=lambda each: (places[each], each))
    first = {each: images[i] for i, each in reversed(list(enumerate(digests))) if each}
    turns = {each: circle[i + 1 :] + circle[:i] for i, each in enumerate(circle)}
    return [
        tuple(first[other] for other in turns[own] if len(other) == len(own) and not set(other) & set(own))
        if own
        else ()
        for own in digests
    ]
