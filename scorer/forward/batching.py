"""Decide which rows share a padded forward pass, and how large it may be.

The longest rows come first. The rows of a batch then have nearly equal lengths, which keeps padding low, and the
largest batch runs first, so that a lack of memory shows at once and not after hours.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

from scorer.errors import BatchTooLargeError
from scorer.forward.memory import HELD_BYTES, is_out_of_memory
from scorer.forward.staging import total_bytes
from scorer.types import EncodedSample

Scored = TypeVar("Scored")

MAX_PADDING: Final = 0.04
"""The share of padding in a batch's text tokens above which the batch is closed early."""
FILL: Final = 8
"""A batch of at least budget / FILL tokens already keeps the device busy, so it may be closed early."""


def plan_batches(
    lengths: Sequence[int], max_tokens: int, groups: Sequence[Hashable] = (), texts: Sequence[int] = ()
) -> list[list[int]]:
    """Split row numbers into batches with ``rows × longest row ≤ max_tokens``; a longer row runs alone.

    The result depends only on the arguments; ties keep their order.

    Args:
        lengths: tokens of each row.
        max_tokens: the budget.
        groups: what each row may share with others (its image); rows of one group stay neighbours. If empty, every row
            is a separate group.
        texts: text tokens of each row, without image and prompt; all tokens if empty. A batch that fills the device is
            closed between groups before padding exceeds :data:`MAX_PADDING` of its text tokens.
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
    """Return the share of padding when texts run side by side."""
    return 1.0 - sum(texts) / (len(texts) * max(texts)) if max(texts) else 0.0


def windows(rows: Iterable[EncodedSample]) -> Iterator[list[EncodedSample]]:
    """Yield rows in order, in lists whose images take about :data:`HELD_BYTES`; they follow from the rows alone."""
    held: list[EncodedSample] = []
    nbytes = 0
    for row in rows:
        held.append(row)
        nbytes += total_bytes([branch.pixels for branch in row.branches])
        if nbytes >= HELD_BYTES:
            yield held
            held, nbytes = [], 0
    if held:
        yield held


def plain_batches(
    rows: Sequence[EncodedSample], max_tokens: int, score: Callable[[list[EncodedSample]], list[Scored]]
) -> list[Scored | Exception]:
    """Apply ``score`` to padded batches of rows and return results in row order; :func:`plan_batches` forms them.

    A row that alone does not fit in memory gets the error.

    Raises:
        BatchTooLargeError: a batch of several rows does not fit. Nothing is kept: which rows share a batch must
            follow from the rows and the budget alone, so the caller starts again with a smaller budget.
        AssertionError: ``score`` did not return one result per row.
    """
    results: dict[int, Scored | Exception] = {}
    lengths = [row.length for row in rows]
    texts = [row.length - int(row.clean.label_index[0]) for row in rows]
    for batch in plan_batches(lengths, max_tokens, [row.clean.pixels_digest for row in rows], texts):
        scored: list[Scored | Exception]
        try:
            scored = list(score([rows[i] for i in batch]))
        except RuntimeError as error:  # torch.OutOfMemoryError and the CPU allocator's error are RuntimeErrors
            if not is_out_of_memory(error):
                raise
            if len(batch) > 1:
                tokens = len(batch) * max(lengths[i] for i in batch)
                raise BatchTooLargeError(f"a batch of {tokens} tokens ran out of memory", tokens // 2) from error
            scored = [error]
        if len(scored) != len(batch):
            raise AssertionError(f"{len(batch)} rows went in, {len(scored)} came out")
        results.update(zip(batch, scored, strict=True))
    return [results[i] for i in range(len(rows))]
