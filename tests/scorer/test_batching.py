"""Batches cover every row once, within the budget, longest first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorer.batching import map_batches, plan_batches


@given(st.lists(st.integers(1, 200), max_size=60), st.integers(1, 400))
def test_every_row_once_within_the_budget_longest_first(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    longest = [max(lengths[i] for i in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)


@given(st.lists(st.text(max_size=8), max_size=30))
def test_results_come_back_in_the_rows_order(rows: list[str]) -> None:
    assert map_batches(rows, len, 20, lambda batch: [row.upper() for row in batch]) == [row.upper() for row in rows]


def test_a_lost_result_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        map_batches(["a", "b"], len, 20, lambda batch: batch[:-1])
