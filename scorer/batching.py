"""Which samples share a forward pass.

Longest first: rows of one batch then have nearly equal lengths, so little is padding, and the largest batch comes
first, so that a lack of memory shows at once and not after hours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Row = TypeVar("Row")
Scored = TypeVar("Scored")


def plan_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Split row numbers into batches with ``rows × longest row ≤ max_tokens``; a longer row goes alone.

    Deterministic: depends on the lengths and their order alone, ties keep their order.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        # the batch's first row is its longest
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= max_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def map_batches(
    rows: Sequence[Row],
    length: Callable[[Row], int],
    max_tokens: int,
    score: Callable[[list[Row]], list[Scored]],
) -> list[Scored]:
    """Apply ``score`` to batches of rows; results in the rows' own order.

    Raises:
        AssertionError: ``score`` did not return one result per row.
    """
    results: dict[int, Scored] = {}
    for batch in plan_batches([length(row) for row in rows], max_tokens):
        scored = score([rows[i] for i in batch])
        results.update(zip(batch, scored, strict=True))
    if len(results) != len(rows):
        raise AssertionError(f"{len(rows)} rows went in, {len(results)} came out")
    return [results[i] for i in range(len(rows))]
