"""Which samples share a forward pass, and how large it may be.

Longest first: rows of one batch then have nearly equal lengths, so little is padding, and the largest batch comes
first, so that a lack of memory shows at once and not after hours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeVar

Row = TypeVar("Row")
Scored = TypeVar("Scored")

logger = logging.getLogger(__name__)

MAX_PADDING: Final = 0.04
"""Share of padding in a batch's text tokens beyond which it is closed early."""
FILL: Final = 8
"""A batch of at least budget / FILL tokens is large enough to be closed early: it keeps the device busy as it is."""


class TokenBudget:
    """Tokens of one padded forward pass, rows × longest row; halved where memory runs out, and remembered.

    Attributes:
        tokens: the budget now.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def halve(self, failed: int) -> None:
        """A batch of ``failed`` tokens did not fit."""
        self.tokens = max(1, min(self.tokens, failed) // 2)
        logger.warning("a batch of %d tokens ran out of memory; going on with at most %d", failed, self.tokens)


def plan_batches(
    lengths: Sequence[int], max_tokens: int, groups: Sequence[Hashable] = (), texts: Sequence[int] = ()
) -> list[list[int]]:
    """Split row numbers into batches with ``rows × longest row ≤ max_tokens``; a longer row goes alone.

    Deterministic: depends on the arguments alone, ties keep their order.

    Args:
        lengths: tokens of each row.
        max_tokens: the budget.
        groups: for each row what it may share with others (its image), or nothing; rows of one group stay neighbours.
        texts: tokens of each row that are its own and not an image's or a prompt's, by default all. A batch that fills
            the device is closed between groups rather than let padding exceed :data:`MAX_PADDING` of them.
    """
    groups = groups or range(len(lengths))
    texts = texts or lengths
    longest: dict[Hashable, int] = {}
    first: dict[Hashable, int] = {}
    for i, (length, group) in enumerate(zip(lengths, groups, strict=True)):
        longest[group] = max(length, longest.get(group, 0))
        first.setdefault(group, i)
    order = sorted(range(len(lengths)), key=lambda i: (-longest[groups[i]], first[groups[i]], -lengths[i]))
    batches: list[list[int]] = []
    widest = 0
    for i in order:
        widest = max(widest, lengths[i])
        fits = bool(batches) and (len(batches[-1]) + 1) * widest <= max_tokens
        if fits and groups[i] != groups[batches[-1][-1]] and len(batches[-1]) * widest * FILL >= max_tokens:
            fits = _padding([texts[k] for k in (*batches[-1], i)]) <= MAX_PADDING
        if fits:
            batches[-1].append(i)
        else:
            batches.append([i])
            widest = lengths[i]
    return batches


def _padding(texts: Sequence[int]) -> float:
    """Share of padding in texts that run side by side."""
    return 1.0 - sum(texts) / (len(texts) * max(texts)) if max(texts) else 0.0


def map_batches(
    rows: Sequence[Row],
    length: Callable[[Row], int],
    text: Callable[[Row], int],
    group: Callable[[Row], Hashable],
    budget: TokenBudget,
    score: Callable[[list[Row]], list[Scored]],
    is_out_of_memory: Callable[[Exception], bool],
    too_large: Callable[[Row, Exception], Scored],
) -> list[Scored]:
    """Apply ``score`` to batches of rows; results in the rows' own order. See :func:`plan_batches`.

    A batch that runs out of memory halves the budget and is split, what was scored before is kept; a row that does
    not fit alone gets the result of ``too_large``.

    Raises:
        AssertionError: ``score`` did not return one result per row.
    """
    results: dict[int, Scored] = {}
    waiting = list(range(len(rows)))
    while waiting:
        left = [rows[i] for i in waiting]
        plan = plan_batches([*map(length, left)], budget.tokens, [*map(group, left)], [*map(text, left)])
        for batch in ([waiting[k] for k in one] for one in plan):
            try:
                scored = score([rows[i] for i in batch])
            except RuntimeError as error:  # torch.OutOfMemoryError is one, and so is the CPU allocator's
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    results[batch[0]] = too_large(rows[batch[0]], error)
                    continue
                budget.halve(len(batch) * max(length(rows[i]) for i in batch))
                break  # what is left is planned anew
            if len(scored) != len(batch):
                raise AssertionError(f"{len(batch)} rows went in, {len(scored)} came out")
            results.update(zip(batch, scored, strict=True))
        waiting = [i for i in range(len(rows)) if i not in results]
    return [results[i] for i in range(len(rows))]
