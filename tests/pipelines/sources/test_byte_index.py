from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.byte_index import ByteIndex

RUNS = [(0, 0, 10), (1, 10, 20), (0, 20, 30), (2, 30, 40), (3, 45, 50)]


def test_neighbours_join_and_others_do_not() -> None:
    index = ByteIndex.build(RUNS)
    assert len(index) == 4
    assert index.extent(0, 2).runs == ((0, 30),)
    assert index.extent(0, 1).runs == ((0, 10), (20, 30))
    assert index.extent(1, 3).runs == ((10, 20), (30, 40))
    assert index.extent(2, 4).runs == ((30, 40), (45, 50))
    assert index.extent(2, 2).runs == ()


def test_damage_is_one_more_row_that_has_no_bytes() -> None:
    index = ByteIndex.build(RUNS, damaged_at=50)
    assert len(index) == 5
    assert index.extent(3, 5).damaged_at == 50
    assert index.extent(4, 5).runs == ()
    assert index.extent(0, 4).damaged_at is None
    assert len(ByteIndex.build([])) == 0
    assert len(ByteIndex.build([], damaged_at=0)) == 1


def test_an_extent_serves_rows_of_its_own_only() -> None:
    extent = ByteIndex.build(RUNS).extent(1, 3)
    assert extent.extent(2, 3) is extent
    with pytest.raises(ValueError, match="rows 0 to 3 are not among rows 1 to 3"):
        extent.extent(0, 3)


def test_a_units_part_stays_small() -> None:
    index = ByteIndex.build((row, row * 10, row * 10 + 10) for row in range(100_000))
    assert len(pickle.dumps(index.extent(500, 756))) < 200


@given(st.data())
def test_every_byte_of_a_row_is_in_its_extent_and_none_of_another(data: st.DataObject) -> None:
    owners = data.draw(st.lists(st.integers(0, 5), max_size=30))
    owners = [sorted(set(owners)).index(owner) for owner in owners]
    index = ByteIndex.build((owner, 10 * place, 10 * place + 10) for place, owner in enumerate(owners))
    start = data.draw(st.integers(0, len(index)))
    stop = data.draw(st.integers(start, len(index)))
    covered = [place for first, last in index.extent(start, stop).runs for place in range(first // 10, last // 10)]
    assert covered == [place for place, owner in enumerate(owners) if start <= owner < stop]
