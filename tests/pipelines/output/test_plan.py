from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.output.plan import plan, shard_key
from pipelines.sources import Shard
from scorer.errors import ConfigError

SHARD = Shard(path="/data/a.parquet", name="a.parquet", size=10, etag="e", rows=12)


@given(rows=st.integers(0, 300), rows_per_unit=st.integers(1, 50))
def test_units_cover_every_row_once_in_order(rows: int, rows_per_unit: int) -> None:
    (planned,) = plan([dataclasses.replace(SHARD, rows=rows)], rows_per_unit)
    covered = [row for unit in planned.units for row in range(unit.start, unit.stop)]
    assert covered == list(range(rows))
    assert all(unit.rows == rows_per_unit for unit in planned.units[:-1])
    assert len({unit.id for unit in planned.units}) == len(planned.units)


def test_a_plan_does_not_depend_on_where_the_shard_lies_or_on_other_shards() -> None:
    moved = dataclasses.replace(SHARD, path="s3://elsewhere/a.parquet")
    other = dataclasses.replace(SHARD, name="b.parquet")
    (alone,) = plan([SHARD], 5)
    together = plan([other, moved], 5)
    assert [unit.id for unit in together[1].units] == [unit.id for unit in alone.units]
    # Ids are stored in outputs: a change of this line orphans every run that is not finished.
    assert alone.units[1].id == "b853fc0cec92906b-537599c97071202c-5-10"


@pytest.mark.parametrize("change", [{"size": 11}, {"etag": "f"}, {"rows": 13}])
def test_a_changed_shard_keeps_its_name_key_and_changes_the_rest(change: dict[str, object]) -> None:
    changed = dataclasses.replace(SHARD, **change)  # type: ignore[arg-type]
    before, after = shard_key(SHARD).split("-"), shard_key(changed).split("-")
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_a_unit_has_at_least_one_row() -> None:
    with pytest.raises(ConfigError, match="rows-per-unit is 0"):
        plan([SHARD], 0)
