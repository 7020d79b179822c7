from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.byte_index import ByteIndex, IndexPart

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


def sent(part: IndexPart) -> IndexPart:
    found = pickle.loads(pickle.dumps(part))
    assert isinstance(found, IndexPart)
    return found


@pytest.mark.parametrize("pickled", [False, True])
def test_a_part_serves_rows_of_its_own_only(pickled: bool) -> None:
    part = ByteIndex.build(RUNS).part(1, 3)
    part = sent(part) if pickled else part
    assert part.extent(1, 2).runs == ((10, 20),)
    assert part.part(2, 3).extent(2, 3).runs == ((30, 40),)
    for rows in ((0, 3), (1, 4), (3, 2)):
        with pytest.raises(ValueError, match=r"rows \d to \d are not among rows 1 to 3"):
            part.extent(*rows)
        with pytest.raises(ValueError, match=r"rows \d to \d are not among rows 1 to 3"):
            part.part(*rows)


def test_an_index_refuses_rows_that_it_has_not() -> None:
    with pytest.raises(ValueError, match="rows 3 to 5 are not among rows 0 to 4"):
        ByteIndex.build(RUNS).extent(3, 5)


def test_a_units_part_stays_small() -> None:
    index = ByteIndex.build((row, row * 10, row * 10 + 10) for row in range(100_000))
    assert len(pickle.dumps(index.part(500, 756))) < 256 * 24 + 1_000
    assert len(pickle.dumps(index.part(500, 756).part(500, 501))) < 1_000


@given(st.data())
def test_every_byte_of_a_row_is_in_its_extent_and_none_of_another(data: st.DataObject) -> None:
    owners = data.draw(st.lists(st.integers(0, 5), max_size=30))
    owners = [sorted(set(owners)).index(owner) for owner in owners]
    index = ByteIndex.build((owner, 10 * place, 10 * place + 10) for place, owner in enumerate(owners))
    start = data.draw(st.integers(0, len(index)))
    stop = data.draw(st.integers(start, len(index)))
    covered = [place for first, last in index.extent(start, stop).runs for place in range(first // 10, last // 10)]
    assert covered == [place for place, owner in enumerate(owners) if start <= owner < stop]
    outer = data.draw(st.integers(0, start)), data.draw(st.integers(stop, len(index)))
    damaged = replace(index, damaged_at=500)
    for whole in (index, damaged):
        part = whole.part(*outer)
        assert part.extent(start, stop) == sent(part).extent(start, stop) == whole.extent(start, stop)
    assert sent(damaged.part(start, len(damaged))).extent(start, len(damaged)).damaged_at == 500
