"""Of very many units, Ray Data is given some at a time. No cluster here: what is tested is that none is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.executors import ray_data
from pipelines.executors.ray_data import RayDataExecutor
from pipelines.executors.resources import Allocation, ClusterSize
from pipelines.output.plan import Unit
from pipelines.run.job import prepare
from pipelines.run.score_unit import UnitWork
from tests.pipelines.helpers import ROWS, RecordingWatch, make_job, published, run


class Pipeline:
    """Stands for the dataset that Ray Data runs."""

    def __init__(self, work: UnitWork, units: Sequence[Unit]) -> None:
        self.work = work
        self.units = units

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        encoder, scorer = self.work.engine.encoder(), self.work.engine.scorer()
        for unit in self.units:
            yield {"marker": self.work.run(unit, encoder, scorer).to_bytes(), "actor": "a"}


def test_units_come_in_waves(dataset: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waves: list[int] = []

    def pipeline(work: UnitWork, units: Sequence[Unit], _: Allocation) -> Pipeline:
        waves.append(len(units))
        return Pipeline(work, units)

    monkeypatch.setattr(ray_data, "WAVE", 3)
    monkeypatch.setattr(ray_data, "_pipeline", pipeline)
    monkeypatch.setattr(ray_data, "connect", lambda _: None)
    monkeypatch.setattr(ray_data, "cluster_size", lambda: ClusterSize(4, 0))
    monkeypatch.setattr(RayDataExecutor, "publish", ray_data_free_publish)
    watch = RecordingWatch()
    prepare(make_job(dataset, output)).execute(RayDataExecutor(), watch)
    assert waves == [3, 3, 2]
    assert watch.rows == ROWS
    run(make_job(dataset, tmp_path / "local"))
    assert published(output) == published(tmp_path / "local")


def ray_data_free_publish(_: RayDataExecutor, work: UnitWork, planned: Any) -> Any:
    from pipelines.executors.local import LocalExecutor

    return LocalExecutor().publish(work, planned)
