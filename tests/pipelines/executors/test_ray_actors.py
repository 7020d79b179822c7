"""The same promises through Ray, on one small cluster."""

from __future__ import annotations

import json
import os
import time
from itertools import accumulate
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray

from pipelines.executors.feed import FIRST_ROWS
from pipelines.executors.isolation.isolate import MAX_DEATHS
from pipelines.executors.ray_actors import RayExecutor
from pipelines.executors.resources import ActorOptions
from pipelines.output.attempts import MAX_ATTEMPTS
from pipelines.output.tally import Tally
from pipelines.run.job import prepare
from scorer.errors import ModelError
from tests.pipelines.deadly_engine import DeadlyEngine
from tests.pipelines.executors.test_local import write as write_hostile
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import RecordingWatch, make_job, published, run, snapshot, write_dataset
from tests.pipelines.hostile_engine import HostileEngine
from tests.pipelines.outputs import flip, problems, stop_after
from tests.pipelines.ray_engines import LoggingEngine, UnloadableEngine

pytestmark = pytest.mark.usefixtures("ray_cluster")
ONE = ActorOptions(actors=1, cpus_per_actor=3)
"""Leaves CPU for one encoder: every process takes seconds to start."""
AHEAD = 15
"""Rows that may be encoded ahead in a test of that."""
SHARDS = {"a.parquet": 60, "b.parquet": 33, "empty.parquet": 0}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", SHARDS)


@pytest.fixture
def expected(dataset: Path, tmp_path: Path) -> dict[str, bytes]:
    """What one process makes of the dataset."""
    run(make_job(dataset, tmp_path / "local"))
    return published(tmp_path / "local", list(SHARDS))


def test_units_go_through_two_stages_and_encoding_does_not_run_ahead(
    dataset: Path, output: Path, expected: dict[str, bytes]
) -> None:
    row_bytes = 4 << 20
    engine = LoggingEngine(seconds_per_row=0.03, log=str(output.parent / "events"), row_bytes=row_bytes)
    watch = RecordingWatch()
    job = make_job(dataset, output, engine)
    options = ActorOptions(actors=1, cpus_per_actor=2)
    prepare(job).execute(RayExecutor(options, bytes_ahead=AHEAD * row_bytes), watch)
    assert published(output, list(SHARDS)) == expected
    assert watch.rows == sum(SHARDS.values())

    events = engine.events()
    encoders = {event.pid for event in events if event.kind == "encode"}
    scorers = {event.pid for event in events if event.kind == "score"}
    assert len(scorers) == 1
    assert encoders.isdisjoint(scorers), "the stages were fused: encoding would cost the GPU's time"
    assert os.getpid() not in encoders | scorers
    steps = {"encode": 1, "take": -1, "score": 0}
    ahead = max(accumulate(steps[event.kind] for event in events))
    assert AHEAD // 2 <= ahead <= AHEAD + FIRST_ROWS + 1, "the budget, and at most a block that is being taken"

    before = snapshot(output)
    again = RecordingWatch()
    prepare(make_job(dataset, output, engine)).execute(RayExecutor(), again)
    assert again.rows == 0
    assert snapshot(output) == before


def test_a_row_that_kills_its_worker_is_quarantined(dataset: Path, output: Path, expected: dict[str, bytes]) -> None:
    engine = DeadlyEngine(log=str(output.parent / "loads"), deadly="57")
    summary = prepare(make_job(dataset, output, engine)).execute(RayExecutor(ONE), RecordingWatch())
    assert summary["failures"]["worker_crash"]["count"] == 1
    (example,) = summary["failures"]["worker_crash"]["examples"]
    assert (example["shard"], example["row_index"]) == ("a.parquet", 57)
    assert "died on this row 2 times" in example["message"]
    assert (output / "b.parquet").read_bytes() == expected["b.parquet"]
    rows = pq.read_table(output / "a.parquet").to_pylist()
    run(make_job(dataset, output.parent / "without", FakeEngine(refused=("57",))))
    clean = pq.read_table(output.parent / "without" / "a.parquet").to_pylist()
    assert [row for row in rows if row["row_index"] != 57] == [row for row in clean if row["row_index"] != 57]
    assert engine.loads <= 1 + MAX_ATTEMPTS + 1 + MAX_DEATHS + 1, "bounded: the actor's lives, and the sacrifices"


def test_rows_that_hang_or_kill_their_encoder_fail_alone(tmp_path: Path) -> None:
    harm = {2: "hang-encode", 7: "killed-encode", 17: "hang-score", 22: "gulp-score"}
    data = write_hostile(tmp_path / "data", harm)
    run(make_job(data / "hostile", tmp_path / "expected", FakeEngine(refused=tuple(harm.values()))))
    job = make_job(data / "hostile", tmp_path / "out", HostileEngine(), row_timeout=2.0)
    summary = prepare(job).execute(RayExecutor(ONE), RecordingWatch())
    found = pq.read_table(tmp_path / "out" / "a.parquet").to_pylist()
    clean = pq.read_table(tmp_path / "expected" / "a.parquet").to_pylist()
    assert {i: found[i]["status"] for i in harm} == {
        2: "row_timeout",
        7: "worker_crash",
        17: "row_timeout",
        22: "scoring_failed",
    }
    assert [row for i, row in enumerate(found) if i not in harm] == [
        row for i, row in enumerate(clean) if i not in harm
    ]
    assert summary["rows"] == 25


def test_a_model_that_does_not_load_ends_the_run_with_its_own_words(dataset: Path, output: Path) -> None:
    with pytest.raises(ModelError, match="the weights are not what they seemed"):
        prepare(make_job(dataset, output, UnloadableEngine())).execute(RayExecutor(ONE), RecordingWatch())


def free_cpus() -> float:
    return float(ray.available_resources().get("CPU", 0.0))


def test_a_run_that_ends_gives_back_what_it_held_however_it_ends(dataset: Path, output: Path) -> None:
    """The driver lives on, and Ray keeps an actor for as long as its driver lives."""
    everything = float(ray.cluster_resources()["CPU"])

    class Stopped(RecordingWatch):
        def add(self, tally: Tally) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(make_job(dataset, output)).execute(RayExecutor(ONE), Stopped())
    deadline = time.monotonic() + 60
    while free_cpus() < everything and time.monotonic() < deadline:
        time.sleep(0.2)
    assert free_cpus() == everything, "actors and their encoders"


def test_damaged_units_are_scored_again(dataset: Path, output: Path, expected: dict[str, bytes]) -> None:
    stop_after(2, dataset, output)
    markers = sorted((output / "_commits").iterdir())
    flip(output / json.loads(markers[0].read_bytes())["key"])
    markers[1].write_bytes(b"{")
    prepare(make_job(dataset, output)).execute(RayExecutor(ONE), RecordingWatch())
    assert published(output, list(SHARDS)) == expected
    assert problems(output) == []
