"""Which rows are asked for: every row once and in order, within the budget, whatever encoders do."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Hashable

import pytest

from pipelines.executors.feed import CALLS, FILL, FIRST_ROWS, Chunk, Feed
from pipelines.run.encoding import BLOCK_BYTES, READ_ROWS
from tests.pipelines.executors.blocks import block, unit

MB = 1_000_000


def fed(encoders: int, bytes_ahead: int = 1_000 * MB) -> Feed:
    feed = Feed(bytes_ahead)
    for encoder in range(encoders):
        feed.join(encoder)
    return feed


def answer(feed: Feed, chunk: Chunk, row_bytes: int, rows: int | None = None) -> None:
    stop = chunk.stop if rows is None else chunk.start + rows
    feed.arrive(chunk, block(chunk.start, stop, row_bytes))


def test_every_encoder_has_a_chunk_at_work_and_one_waiting() -> None:
    feed, one = fed(3), unit(0, 1_000)
    feed.add(one)
    asked = list(feed.asks())
    assert [chunk.encoder for chunk in asked] == [0, 1, 2] * CALLS
    assert [(chunk.start, chunk.stop) for chunk in asked] == [(4 * i, 4 * i + 4) for i in range(3 * CALLS)]
    assert not list(feed.asks())


@pytest.mark.parametrize(
    ("row_bytes", "seconds", "encoders", "rows"),
    [
        (1_000, 1e-4, 1, READ_ROWS),  # no more images are read than that
        (6 * MB, 1e-4, 1, 5),  # half a block
        (6 * MB, 1e-4, 25, 1),  # as much may wait as is under way: 1,000 MB ÷ 100
        (70 * MB, 1e-4, 1, 1),
        (1_000, 0.2, 1, 10),  # two seconds
    ],
)
def test_chunks_follow_from_what_rows_have_taken(row_bytes: int, seconds: float, encoders: int, rows: int) -> None:
    feed = fed(encoders)
    feed.add(unit(0, 10_000))
    first = next(feed.asks())
    feed.arrive(first, block(first.start, first.stop, row_bytes, seconds))
    chunk = next(feed.asks())
    assert chunk.stop - chunk.start == rows
    assert rows * row_bytes <= max(BLOCK_BYTES / FILL, row_bytes)


def test_no_more_bytes_wait_than_the_budget_but_the_scorer_is_never_starved() -> None:
    feed, one = fed(6, bytes_ahead=100 * MB), unit(0, 400)
    feed.add(one)
    asked = deque(feed.asks())
    most = 0
    taken = 0
    while asked:
        answer(feed, asked.popleft(), 6 * MB)
        asked += feed.asks()
        most = max(most, feed.bytes_held)
        if not asked:  # only now does the scorer take a block
            found = feed.take(one)
            assert found is not None, "nothing is asked for, and nothing is there"
            taken += found.rows
            asked += feed.asks()
    assert 80 * MB < most <= 100 * MB
    tiny = fed(2, bytes_ahead=1)
    tiny.add(unit(0, 10))
    assert len(list(tiny.asks())) == 1, "one chunk is always under way"


def test_a_unit_behind_is_encoded_ahead_when_the_first_is_asked_for() -> None:
    feed, first, second = fed(2), unit(0, FIRST_ROWS), unit(100, 100)
    feed.add(first)
    feed.add(second)
    chunks = list(feed.asks())
    assert [chunk.unit for chunk in chunks] == [first, second, second, second]
    answer(feed, chunks[1], 1_000)
    assert feed.take(first) is None, "not before its turn"
    with pytest.raises(AssertionError, match="not the turn"):
        feed.take(second)
    answer(feed, chunks[0], 1_000)
    assert feed.take(first) is not None
    feed.remove(first)
    assert feed.first is second
    assert feed.take(second) is not None


def test_rows_that_do_not_fit_in_a_block_are_asked_for_next() -> None:
    feed, one = fed(1), unit(0, 4)
    feed.add(one)
    (chunk,) = feed.asks()
    answer(feed, chunk, 30 * MB, rows=2)
    (rest,) = feed.asks()
    assert (rest.start, rest.stop) == (2, 4)
    answer(feed, rest, 30 * MB)
    assert [feed.take(one).rows for _ in range(2)] == [2, 2]  # type: ignore[union-attr]


def test_the_chunks_of_an_encoder_that_is_gone_are_asked_of_others_and_the_first_is_blamed() -> None:
    feed, one, two = fed(2), unit(0, FIRST_ROWS), unit(100, 100)
    feed.add(one)
    feed.add(two)
    chunks = list(feed.asks())
    blamed = feed.leave(0)
    assert blamed is chunks[0], "the one that it was at work on; it had not begun with the others"
    assert not list(feed.asks()), "the other encoder has enough"
    feed.join(2)
    assert [(chunk.start, chunk.encoder) for chunk in feed.asks()] == [(0, 2), (chunks[2].start, 2)]
    assert feed.leave(7) is None


def test_nobody_is_blamed_for_a_chunk_that_was_dropped() -> None:
    feed, one = fed(1), unit(0, 100)
    feed.add(one)
    list(feed.asks())
    feed.remove(one)
    assert feed.leave(0) is None


def test_a_unit_that_is_restarted_frees_what_those_behind_it_hold() -> None:
    feed, first, second = fed(2, bytes_ahead=100 * MB), unit(0, 8), unit(100, 100)
    feed.add(first)
    feed.add(second)
    for chunk in list(feed.asks()):
        answer(feed, chunk, 10 * MB)
    assert feed.take(first) is not None
    under_way = list(feed.asks())
    feed.restart(first)
    assert feed.bytes_held == 0
    for chunk in under_way:
        answer(feed, chunk, 10 * MB)  # what arrives for the dropped is let go
    assert feed.bytes_held == 0
    assert next(feed.asks()).start == 0


def test_a_unit_that_is_given_up_keeps_its_turn_and_is_asked_for_no_more() -> None:
    feed, first, second = fed(1), unit(0, 100), unit(100, 100)
    feed.add(first)
    feed.add(second)
    list(feed.asks())
    feed.give_up(first)
    assert feed.first is first
    feed.leave(0)
    feed.join(1)
    assert {chunk.unit for chunk in feed.asks()} == {second}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_encoders_do_every_row_comes_once_and_in_order(seed: int) -> None:
    chosen = random.Random(seed)
    feed = fed(3, bytes_ahead=60 * MB)
    units = [unit(1_000 * i, chosen.randint(1, 60)) for i in range(4)]
    for one in units:
        feed.add(one)
    names = iter(range(3, 10_000))
    at_work: dict[Hashable, deque[Chunk]] = {encoder: deque() for encoder in feed.encoders}
    for one in units:
        rows: list[int] = []
        while len(rows) < one.rows:
            for chunk in feed.asks():
                assert chunk.encoder is not None
                at_work[chunk.encoder].append(chunk)
            busy = [encoder for encoder, chunks in at_work.items() if chunks]
            if busy:
                encoder = chosen.choice(busy)
                if chosen.random() < 0.1:
                    assert feed.leave(encoder) is at_work.pop(encoder)[0]
                    feed.join(another := next(names))
                    at_work[another] = deque()
                    continue
                chunk = at_work[encoder].popleft()
                answer(feed, chunk, chosen.randint(1, 20) * MB, chosen.randint(1, chunk.stop - chunk.start))
            if chosen.random() < 0.7 and (found := feed.take(one)) is not None:
                rows += [int(row.sample_id) for row in found.unpack()]
        assert rows == list(range(one.start, one.stop))
        feed.remove(one)
