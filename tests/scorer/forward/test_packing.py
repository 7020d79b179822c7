"""Batches keep to the budget, share what rows share, and follow from the rows alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorer.forward import packing
from scorer.forward.packing import Batch, Packer
from scorer.types import BytePixels
from tests.scorer.forward.test_attention import row

Row = tuple[int, int]
"""(image, caption's tokens)"""
IMAGE = 20
TABLE = np.zeros((3, 256), dtype=np.float32)


def add(packer: Packer[int], number: int, one: Row) -> None:
    image, caption = one
    pixels = {"pixel_values": BytePixels(np.zeros((1, 3, 10, 10), dtype=np.uint8), TABLE)}
    ids = [1000 + image] * IMAGE + [2000 + number] * caption
    of_image = replace(row(ids, IMAGE, digest=bytes([image])), pixels=pixels)
    packer.add(number, packer.path(of_image, [IMAGE]))


def tokens(batch: Batch[int]) -> int:
    return sum({id(s): s.length for _, path in batch for s in path.segments}.values())


def numbers(batches: list[Batch[int]]) -> list[list[int]]:
    return [[number for number, _ in batch] for batch in batches]


def packed(rows: list[Row], budget: int) -> list[Batch[int]]:
    packer: Packer[int] = Packer(budget)
    batches = []
    for number, one in enumerate(rows):
        add(packer, number, one)
        batches += packer.full()
    return [*batches, *packer.rest()]


ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(2, 60)), max_size=40)


@given(ROWS, st.integers(1, 400))
def test_every_row_once_within_the_budget(rows: list[Row], budget: int) -> None:
    batches = packed(rows, budget)
    assert sorted(n for batch in numbers(batches) for n in batch) == list(range(len(rows)))
    for batch in batches:
        assert len(batch) == 1 or tokens(batch) <= budget


@given(ROWS)
def test_rows_of_an_image_share_it_if_they_fit(rows: list[Row]) -> None:
    images = [{rows[n][0] for n in batch} for batch in numbers(packed(rows, 10_000))]
    assert sum(map(len, images)) == len({image for image, _ in rows})


def test_only_a_tree_beyond_the_budget_is_divided_and_each_part_runs_its_root() -> None:
    batches = packed([(0, 31)] * 10 + [(1, 31)], 110)  # captions run without their last token: 30
    assert [len(batch) for batch in batches] == [3, 3, 3, 2]
    assert [tokens(batch) for batch in batches] == [110, 110, 110, 100]
    assert {path.root.row.ids[0] for _, path in batches[-1]} == {1000, 1001}


def test_little_of_a_batch_stays_empty() -> None:
    rng = np.random.default_rng(0)
    rows = [(i % 251, int(n)) for i, n in enumerate(np.exp(rng.uniform(np.log(4), np.log(200), 2000)))]
    batches = packed(rows, 2048)
    filled = [tokens(batch) / 2048 for batch in batches[:-1]]
    assert np.mean(filled) > 0.99


@pytest.mark.parametrize("limit", ["HELD_BYTES", "HELD_BUDGETS"])
def test_rows_wait_only_until_there_is_enough_to_choose_from(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, limit, {"HELD_BYTES": 3000, "HELD_BUDGETS": 2}[limit])
    packer: Packer[int] = Packer(200)
    most = 0
    for number in range(200):
        add(packer, number, (number % 256, 20))
        list(packer.full())
        most = max(most, sum(map(len, packer.waiting)))
    assert 3 <= most <= 12
    monkeypatch.undo()
    packer = Packer(200)
    for number in range(60):
        add(packer, number, (number, 20))
    assert not list(packer.full())


def test_the_batches_do_not_depend_on_when_rows_arrive() -> None:
    rows = [(n % 7, 5 + n % 50) for n in range(300)]
    assert numbers(packed(rows, 300)) == numbers(packed(rows, 300))
    assert numbers(packed(rows[:200], 300)) != numbers(packed(rows[:199], 300))


def test_what_ran_is_let_go() -> None:
    packer: Packer[Any] = Packer(100)
    add(packer, 0, (0, 20))
    assert packer._bytes > 0
    list(packer.rest())
    assert (packer._bytes, packer._tokens, packer._forest.roots, packer._trees) == (0, 0, {}, {})
