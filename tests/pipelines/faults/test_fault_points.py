"""A thousand kills, and hundreds of jobs beside each other, at every moment of the protocol."""

from __future__ import annotations

import pytest

from pipelines.output.commit import PublishedShard, UnitMarker
from tests.pipelines.faults.fault_points import (
    SHARDS,
    UNITS,
    Countdown,
    CountingExecutor,
    DictStore,
    KilledError,
    RoundingEngine,
    Stage,
    digest,
    kill_many,
    make_stage,
    race,
)
from tests.pipelines.helpers import write_dataset

KILLS = 1_000
RACES = 200


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return make_stage(write_dataset(tmp_path_factory.mktemp("fault-points"), SHARDS))


@pytest.mark.timeout(900)  # fifteen seconds of one CPU, of which a busy machine may give little
def test_runs_that_are_killed_a_thousand_times_end_like_one_that_is_not(stage: Stage) -> None:
    done = kill_many(stage, KILLS, seed=0)
    assert done["kills"] >= KILLS
    assert done["again"] > 0, "some must have died between scoring and committing"


@pytest.mark.timeout(900)
def test_two_jobs_beside_each_other(stage: Stage) -> None:
    for seed in range(RACES):
        found = race(stage, seed)
        stage.assert_exact(found.objects)
        assert found.winners == {key: 1 for key in found.objects if key.startswith("_commits/")}
        rewritten = {key for key, digests in found.written.items() if len(digests) > 1}
        assert rewritten <= {"_SUCCESS", "README.md"}, "summary and card have the time of their writing, no other file"


def test_two_jobs_on_a_store_that_lets_both_win(stage: Stage) -> None:
    several = 0
    for seed in range(RACES // 4):
        found = race(stage, seed, lax=True)
        stage.assert_exact(found.objects)
        several += sum(count > 1 for count in found.winners.values())
    assert several, "or the test shows nothing"


def test_two_jobs_whose_scores_differ_on_a_store_that_lets_both_win(stage: Stage) -> None:
    for seed in range(RACES // 4):
        found = race(stage, seed, lax=True, engines=(RoundingEngine(seed=1), RoundingEngine(seed=2)))
        assert len(found.winners) == UNITS
        for key, data in found.objects.items():
            if key.startswith("_published/"):
                shard = PublishedShard.from_bytes(data)
                assert digest(found.objects[shard.name]) == shard.sha256, "file and marker must agree"
            if key.startswith("_commits/"):
                marker = UnitMarker.from_bytes(data)
                assert digest(found.objects[marker.key]) == marker.sha256


def test_many_jobs_beside_each_other(stage: Stage) -> None:
    for seed in range(10):
        found = race(stage, seed, engines=(None,) * 4)
        stage.assert_exact(found.objects)
        assert set(found.winners.values()) == {1}


def test_every_object_of_a_run_that_is_killed_is_whole(stage: Stage) -> None:
    """No write is split: at whatever moment a run ends, what it left is what an undisturbed run writes."""
    whole = DictStore({}, lambda: None)
    stage.run(whole, CountingExecutor())
    for fatal in range(stage.moments):
        store = DictStore({}, Countdown(fatal))
        with pytest.raises(KilledError):
            stage.run(store, CountingExecutor())
        names = {name for name in store.objects if name in SHARDS or name.startswith("_units/")}
        assert all(store.objects[name] == whole.objects[name] for name in names)
