"""Batches cover every row once, within the budget, longest first; memory that runs out halves them."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorer.errors import BatchTooLargeError
from scorer.forward.batching import FILL, map_batches, plan_batches


@given(st.lists(st.integers(1, 200), max_size=60), st.integers(1, 400))
def test_every_row_once_within_the_budget_longest_first(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    longest = [max(lengths[i] for i in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 5)), min_size=1, max_size=40), st.integers(1, 200))
def test_rows_of_one_group_are_neighbours_and_the_budget_holds(rows: list[tuple[int, int]], budget: int) -> None:
    lengths, groups = [length for length, _ in rows], [group for _, group in rows]
    batches = plan_batches(lengths, budget, groups)
    order = [groups[i] for batch in batches for i in batch]
    changes = sum(a != b for a, b in itertools.pairwise(order))
    assert changes == len(set(groups)) - 1
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


def padding(batches: list[list[int]], lengths: list[int], shared: int = 0) -> float:
    """Share of padding when rows of ``shared`` + length tokens run, and their lengths once more."""
    run = sum(shared + 2 * lengths[i] for batch in batches for i in batch)
    padded = sum(len(batch) * (shared + 2 * max(lengths[i] for i in batch)) for batch in batches)
    return 1 - run / padded


@pytest.mark.parametrize("shared", [0, 80, 600])
def test_texts_of_mixed_lengths_leave_little_padding(shared: int) -> None:
    rng = random.Random(0)
    texts = [round(math.exp(rng.uniform(math.log(20), math.log(400)))) for _ in range(256)]
    lengths = [shared + text for text in texts]
    batches = plan_batches(lengths, 8192, texts=texts)
    assert padding(batches, texts, shared) < 0.05
    assert padding(plan_batches(lengths, 8192, texts=[0] * 256), texts, shared) > padding(batches, texts, shared)


def test_a_small_batch_is_not_closed_early() -> None:
    lengths = [100, 50, 20, 10]
    assert plan_batches(lengths, 100 * FILL * 4) == [[0, 1, 2, 3]]
    assert plan_batches(lengths, 400) == [[0], [1], [2, 3]]


def test_captions_of_one_image_are_not_parted_for_padding() -> None:
    lengths = [100, 50, 20, 90]
    assert plan_batches(lengths, 400, groups=["a", "a", "a", "b"]) == [[0, 1, 2], [3]]


def run(rows: list[str], max_tokens: int, score: Callable[[list[str]], list[str]]) -> list[str]:
    return map_batches(
        rows,
        length=len,
        text=len,
        group=id,
        max_tokens=max_tokens,
        score=score,
        is_out_of_memory=lambda error: "memory" in str(error),
        too_large=lambda row, error: f"too large: {error}",
    )


@given(st.lists(st.text(max_size=8), max_size=30))
def test_results_come_back_in_the_rows_order(rows: list[str]) -> None:
    assert run(rows, 20, lambda batch: [row.upper() for row in batch]) == [row.upper() for row in rows]


def test_a_lost_result_is_an_error() -> None:
    with pytest.raises(AssertionError, match="2 rows went in, 1 came out"):
        run(["a", "b"], 20, lambda batch: batch[:-1])


def test_a_batch_out_of_memory_ends_it_and_names_the_budget_to_try() -> None:
    sizes: list[int] = []

    def score(batch: list[str]) -> list[str]:
        sizes.append(len(batch) * max(map(len, batch)))
        if sizes[-1] > 30:
            raise RuntimeError("out of memory")
        return [row.upper() for row in batch]

    rows = [f"row {i % 10}" for i in range(40)]
    budget, tries = 200, 0
    while True:
        try:
            results = run(rows, budget, score)
            break
        except BatchTooLargeError as error:
            budget, tries = error.smaller, tries + 1
    assert results == [row.upper() for row in rows]
    assert (sizes[:3], budget, tries) == ([200, 100, 50], 25, 3)
    again = sizes[3:]
    sizes.clear()
    run(rows, budget, score)
    assert sizes == again, "the batches follow from the rows and the budget, whatever failed before"


def test_a_row_too_large_alone_fails_alone() -> None:
    def score(batch: list[str]) -> list[str]:
        if max(map(len, batch)) > 10:
            raise RuntimeError("out of memory")
        return [row.upper() for row in batch]

    assert run(["a", "b" * 11, "c"], 12, score) == ["A", "too large: out of memory", "C"]


def test_other_errors_are_not_swallowed() -> None:
    def score(batch: list[str]) -> list[str]:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        run(["a"], 10, score)
