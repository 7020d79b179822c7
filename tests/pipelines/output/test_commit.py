from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.output import commit
from pipelines.output.commit import (
    DamagedError,
    DamagedUnitsError,
    OutputState,
    commit_unit,
    publish_shard,
    read_marker,
    read_unit,
)
from pipelines.output.plan import ShardPlan, Unit
from pipelines.output.tally import Tally
from pipelines.run.job import prepare
from pipelines.run.score_unit import UnitWork
from scorer.errors import RunError
from scorer.table import SCHEMA, build_table
from scorer.weights import Method
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import make_job

EMPTY = build_table([], 0, Method(), {})


@pytest.fixture
def work(dataset: Path, output: Path) -> UnitWork:
    return prepare(make_job(dataset, output)).work


@pytest.fixture
def planned(dataset: Path, output: Path) -> ShardPlan:
    return prepare(make_job(dataset, output)).plans[0]


def score(work: UnitWork, unit: Unit) -> commit.UnitMarker:
    return work.run(unit, work.engine.encoder(), work.engine.scorer())


def test_the_first_attempt_wins_and_the_second_uses_its_marker(work: UnitWork, planned: ShardPlan) -> None:
    unit = planned.units[0]
    first = score(work, unit)
    before = work.store.get(f"_commits/{unit.id}.json")
    assert score(work, unit) == first
    assert work.store.get(f"_commits/{unit.id}.json") == before
    attempts = [key for key in work.store.sizes() if key.startswith("_units/")]
    assert attempts == [first.key], "the same rows have the same name"
    assert read_marker(work.store, unit) == first


def test_the_unit_file_is_there_before_its_marker(
    work: UnitWork, planned: ShardPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(key: str, _: bytes) -> bool:
        marker = json.loads(_)
        assert marker["key"] in work.store.sizes()
        raise RuntimeError(key)

    monkeypatch.setattr(type(work.store), "create", lambda self, key, data: crash(key, data))
    with pytest.raises(RuntimeError, match="_commits/"):
        score(work, planned.units[0])


def test_a_torn_unit_is_found(work: UnitWork, planned: ShardPlan) -> None:
    unit = planned.units[1]
    marker = score(work, unit)
    assert read_unit(work.store, unit, marker).num_rows == unit.rows
    whole = work.store.get(marker.key)
    for torn in (whole[:-1], whole[: len(whole) // 2], b"", whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:]):
        work.store.put(marker.key, torn)
        with pytest.raises(RunError, match=rf"{marker.key} is not what .*SHA-256 differs.*run the same command"):
            read_unit(work.store, unit, marker)


def test_an_absent_unit_is_found(work: UnitWork, planned: ShardPlan, output: Path) -> None:
    marker = score(work, planned.units[1])
    (output / marker.key).unlink()
    with pytest.raises(RunError, match=r"committed but missing; run the same command"):
        read_unit(work.store, planned.units[1], marker)


def test_a_damaged_unit_is_never_published(work: UnitWork, planned: ShardPlan) -> None:
    for unit in planned.units:
        marker = score(work, unit)
    work.store.put(marker.key, b"torn")
    with pytest.raises(RunError, match="SHA-256"):
        publish_shard(work.store, planned, EMPTY)
    assert planned.shard.name not in work.store.sizes()


def test_a_unit_of_other_rows_is_never_published(work: UnitWork, planned: ShardPlan) -> None:
    for unit in planned.units:
        score(work, unit)
    # Rows that were mixed up before they were written: the digest is right, the rows are not.
    unit, other = planned.units[0], read_marker(work.store, planned.units[1])
    key = f"_units/{unit.id}.{other.sha256}.parquet"
    work.store.put(key, work.store.get(other.key))
    wrong = commit.UnitMarker(unit.id, key, other.sha256, other.tally)
    work.store.put(f"_commits/{unit.id}.json", wrong.to_bytes())
    with pytest.raises(RunError, match="does not hold rows 0 to 4"):
        publish_shard(work.store, planned, EMPTY)


@pytest.mark.parametrize("key", ["_units/\0", "../elsewhere.parquet", "_run.json", "\ud800"])
def test_a_marker_that_names_another_file_is_no_marker(work: UnitWork, planned: ShardPlan, key: str) -> None:
    unit = planned.units[0]
    marker = score(work, unit)
    damaged = commit.UnitMarker(unit.id, key, marker.sha256, marker.tally)
    work.store.put(f"_commits/{unit.id}.json", damaged.to_bytes())
    assert commit.find_marker(work.store, unit) is None
    assert score(work, unit).key == marker.key == commit.read_marker(work.store, unit).key, "it is replaced"


def test_a_shard_with_a_unit_too_few_is_never_published(work: UnitWork, planned: ShardPlan) -> None:
    for unit in planned.units:
        score(work, unit)
    with pytest.raises(RunError, match="has 25 rows but 20 are committed"):
        publish_shard(work.store, ShardPlan(planned.key, planned.shard, planned.units[:-1]), EMPTY)
    assert planned.shard.name not in work.store.sizes()


def test_rows_must_add_up_before_a_commit(work: UnitWork, planned: ShardPlan) -> None:
    unit = planned.units[0]
    with pytest.raises(RunError, match="5 rows in, 4 counted, 0 written; refusing to commit"):
        commit_unit(work.store, unit, EMPTY, Tally(rows=4))
    assert not any(key.startswith("_units/") for key in work.store.sizes())


def test_two_publishers_write_the_same_bytes(work: UnitWork, planned: ShardPlan) -> None:
    for unit in planned.units:
        score(work, unit)
    first = publish_shard(work.store, planned, EMPTY)
    data = work.store.get(planned.shard.name)
    assert publish_shard(work.store, planned, EMPTY) == first
    assert work.store.get(planned.shard.name) == data
    assert first.size == len(data)


def test_the_published_file_is_row_aligned_and_one_row_group_a_unit(
    work: UnitWork, planned: ShardPlan, output: Path
) -> None:
    for unit in reversed(planned.units):
        score(work, unit)
    published = work.publish(planned)
    file = pq.ParquetFile(output / planned.shard.name)
    table = file.read()
    assert table.schema.equals(SCHEMA)
    assert table["row_index"].to_pylist() == list(range(25))
    assert table["sample_id"].to_pylist() == [f"a.parquet{i}" for i in range(25)]
    assert file.metadata.num_row_groups == len(planned.units) == 5
    assert published.tally.rows == 25
    assert published.tally.failed == 2


def test_the_loser_of_a_race_publishes_the_winners_rows(dataset: Path, output: Path) -> None:
    run = prepare(make_job(dataset, output))
    planned = run.plans[0]
    other = FakeEngine(seed=1)  # stands for the same model, rounding otherwise
    expected = [score(run.work, unit) for unit in planned.units]
    for unit in planned.units:
        scored = run.work.score(unit, run.work.encode(unit, other.encoder()), other.scorer())
        loser = run.work.commit(unit, scored)
        assert loser in expected
    run.work.publish(planned)
    rows = pq.read_table(output / "a.parquet")["logit_gap"].to_pylist()
    fresh = output.parent / "fresh"
    again = prepare(make_job(dataset, fresh))
    for unit in planned.units:
        score(again.work, unit)
    again.work.publish(planned)
    assert pq.read_table(fresh / "a.parquet")["logit_gap"].to_pylist() == rows


def test_the_state_is_read_off_one_listing(work: UnitWork, planned: ShardPlan) -> None:
    score(work, planned.units[0])
    state = OutputState(work.store.sizes())
    assert [state.is_committed(unit) for unit in planned.units] == [True, False, False, False, False]
    assert not state.is_published(planned)
    assert not state.is_changed(planned)


@pytest.mark.parametrize("error", [DamagedError("a is damaged"), DamagedUnitsError("a is damaged", ["u"])])
def test_a_damage_keeps_its_message_from_one_process_to_another(error: DamagedError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == "a is damaged; run the same command again to score its rows again"
    assert vars(copy) == vars(error)
