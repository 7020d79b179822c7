"""Batches cover every row once, within the budget, longest first; memory that runs out halves them."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scorer.errors import BatchTooLargeError
from scorer.forward import batching
from scorer.forward.batching import FILL, plain_batches, plan_batches, windows
from scorer.types import Branch, EncodedSample


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


def encoded(count: int, seed: int = 0) -> list[EncodedSample]:
    return [sample(i, 10 + (7 * i + seed) % 30) for i in range(count)]


def sample(number: int, tokens: int, pixels: int = 0) -> EncodedSample:
    ids = np.arange(tokens)
    image = {"p": np.zeros(pixels, dtype=np.uint8)} if pixels else {}
    branch = Branch(ids, np.ones(tokens, dtype=np.bool_), np.arange(5, tokens), image, str(number).encode())
    zeros = np.zeros(tokens - 5, dtype=np.int32)
    return EncodedSample(str(number), zeros, zeros, zeros, zeros.astype(np.int16), "", branch, branch)


def names(batch: list[EncodedSample]) -> list[str]:
    return [row.sample_id for row in batch]


@given(st.integers(0, 30), st.integers(0, 9))
def test_results_come_back_in_the_rows_order(count: int, seed: int) -> None:
    rows = encoded(count, seed)
    assert plain_batches(rows, 60, names) == names(rows)


def test_a_lost_result_is_an_error() -> None:
    with pytest.raises(AssertionError, match="2 rows went in, 1 came out"):
        plain_batches([sample(0, 20), sample(1, 20)], 100, lambda batch: names(batch)[:-1])


def test_a_batch_out_of_memory_ends_it_and_names_the_budget_to_try() -> None:
    sizes: list[int] = []

    def score(batch: list[EncodedSample]) -> list[str]:
        sizes.append(len(batch) * max(row.length for row in batch))
        if sizes[-1] > 80:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return names(batch)

    rows = [sample(i, 20) for i in range(40)]
    budget, tries = 400, 0
    while True:
        try:
            results = plain_batches(rows, budget, score)
            break
        except BatchTooLargeError as error:
            budget, tries = error.smaller, tries + 1
    assert results == names(rows)
    assert (sizes[:3], budget, tries) == ([400, 200, 100], 50, 3)
    again = sizes[3:]
    sizes.clear()
    plain_batches(rows, budget, score)
    assert sizes == again, "the batches follow from the rows and the budget, whatever failed before"


def test_a_row_too_large_alone_fails_alone() -> None:
    def score(batch: list[EncodedSample]) -> list[str]:
        if max(row.length for row in batch) > 50:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return names(batch)

    small, large, other = plain_batches([sample(0, 20), sample(1, 60), sample(2, 20)], 50, score)
    assert (small, other) == ("0", "2")
    assert isinstance(large, torch.OutOfMemoryError)


def test_other_errors_are_not_swallowed() -> None:
    def score(batch: list[EncodedSample]) -> list[str]:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        plain_batches(encoded(1), 10, score)


def test_windows_hold_images_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "HELD_BYTES", 1000)
    rows = [sample(i, 10, pixels=150) for i in range(10)]  # both branches: 300 bytes a row
    assert [names(window) for window in windows(iter(rows))] == [list("0123"), list("4567"), list("89")]
    assert names(next(windows(iter([sample(0, 10, 5000)])))) == ["0"], "a row beyond the limit is a window by itself"
