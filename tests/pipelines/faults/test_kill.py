"""Killed by SIGKILL anywhere, a run that is given again ends as if nothing had happened."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.pipelines.faults.killing import Doomed, Nursery, nursery
from tests.pipelines.helpers import ROWS, SHARDS, RecordingWatch, make_job, published, run, write_dataset

KILLS = 24


@dataclass(frozen=True)
class Stage:
    """A dataset, what a run that nobody killed makes of it, and how many moments it passes."""

    dataset: Path
    expected: dict[str, bytes]
    moments: int
    nursery: Nursery

    def kill(self, output: Path, moment: int) -> None:
        codes = self.nursery.run(Doomed(str(self.dataset), str(output), fatal=moment))
        assert codes == [-signal.SIGKILL]

    def assert_exact(self, output: Path) -> None:
        assert published(output) == self.expected
        rows = Counter((name, row) for name in SHARDS for row in pq.read_table(output / name)["row_index"].to_pylist())
        assert [row for row, count in rows.items() if count > 1] == []
        assert set(rows) == {(name, row) for name, count in SHARDS.items() for row in range(count)}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    root = tmp_path_factory.mktemp("killed")
    dataset = write_dataset(root / "data")
    count = root / "moments"
    with nursery() as forks:
        assert forks.run(Doomed(str(dataset), str(root / "whole"), moments_file=str(count))) == [0]
        yield Stage(dataset, published(root / "whole"), int(count.read_text()), forks)


def test_there_are_many_moments_to_be_killed_at(stage: Stage) -> None:
    assert stage.moments > 150


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_killed_run_ends_like_an_uninterrupted_one(stage: Stage, tmp_path: Path, seed: int) -> None:
    # One moment from each of KILLS equal stretches of the run: random, and spread over all of the protocol.
    moment = random.Random(seed).randrange(seed * stage.moments // KILLS, (seed + 1) * stage.moments // KILLS)
    output = tmp_path / "out"
    stage.kill(output, moment)
    markers = output / "_commits"
    committed = len(list(markers.glob("[!.]*.json"))) if markers.exists() else 0
    watch = RecordingWatch()
    summary = run(make_job(stage.dataset, output), watch)
    stage.assert_exact(output)
    assert summary["rows"] == ROWS
    assert len(watch.tallies) == 8 - committed, "committed units are not scored again"


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_is_killed_again_and_again(stage: Stage, tmp_path: Path, seed: int) -> None:
    chosen = random.Random(1000 + seed)
    for _ in range(5):
        stage.kill(tmp_path / "out", chosen.randrange(20, 60))
    run(make_job(stage.dataset, tmp_path / "out"))
    stage.assert_exact(tmp_path / "out")


@pytest.mark.parametrize("seed", range(3))
def test_runs_beside_each_other_on_one_output(stage: Stage, tmp_path: Path, seed: int) -> None:
    offsets = [0, 0, random.Random(seed).randrange(8)]
    runs = [Doomed(str(stage.dataset), str(tmp_path / "out"), offset=offset) for offset in offsets]
    assert stage.nursery.run(*runs) == [0, 0, 0]
    stage.assert_exact(tmp_path / "out")
    assert len(list((tmp_path / "out" / "_commits").iterdir())) == 8
