"""The part of `pipeline_scale.py` that scores nothing: list, plan and resume a dataset of very many shards."""

from __future__ import annotations

import hashlib
import resource
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.pipeline_runs import NoWatch
from pipelines.executors.local import LocalExecutor
from pipelines.output.commit import COMMITS, PUBLISHED, UNITS, PublishedShard, UnitMarker
from pipelines.output.documents import as_json
from pipelines.output.store import open_store
from pipelines.output.summary import summarize
from pipelines.run.job import Job, PreparedRun, prepare
from pipelines.sources.columns import Columns
from pipelines.sources.parquet import ParquetSource
from scorer.summary import SUCCESS
from scorer.weights import Method
from tests.pipelines.fake_engine import FakeEngine

FOLDER = 1_000
"""Shards per folder."""


def measure(folder: Path, shards: int) -> dict[str, Any]:
    """Measure the seconds to list, plan and resume a dataset of ``shards`` shards of one row, and its output's size."""
    _write_shards(folder / "data", shards)
    found: dict[str, Any] = {"shards": shards}
    started = _now()
    run = prepare(_job(folder))
    _record_seconds(found, "list_and_plan", started)
    found["driver_mb_after_planning"] = _peak_mb()
    published = _forge_units_and_shards(run, folder / "out")
    started = _now()
    run = prepare(_job(folder))
    assert not run.pending
    _record_seconds(found, "resume_unfinished", started)
    summary = summarize(run.record, published, run.work.source)
    (folder / "out" / SUCCESS).write_bytes(as_json(summary))
    found["success_mb"] = round((folder / "out" / SUCCESS).stat().st_size / 1e6, 1)
    del run, published  # a rerun is a new process and would not hold them
    started = _now()
    assert prepare(_job(folder)).execute(LocalExecutor(), NoWatch()) == summary
    _record_seconds(found, "resume_finished", started)
    found["objects"] = len(open_store(str(folder / "out")).sizes())
    found["objects_per_unit"] = found["objects"] / shards
    found["driver_mb_after_resume"] = _peak_mb()
    return found


def _job(folder: Path) -> Job:
    data = str(folder / "data")
    source = ParquetSource(data, Columns(), prompt="Describe.")
    return Job(input=data, source=source, store=open_store(str(folder / "out")), engine=FakeEngine(), method=Method())


def _write_shards(root: Path, count: int) -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array([{"bytes": b"ok", "path": None}], image), "caption": pa.array(["a red kite"])})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data = sink.getvalue().to_pybytes()
    for i in range(count):
        if i % FOLDER == 0:
            (root / f"{i // FOLDER:04}").mkdir(parents=True)
        (root / f"{i // FOLDER:04}" / f"{i:07}.parquet").write_bytes(data)


def _forge_units_and_shards(run: PreparedRun, output: Path) -> list[PublishedShard]:
    """Write the output of a finished run from copies of one scored unit, as scoring is measured elsewhere."""
    first = run.pending[0]
    work = run.work
    marker = work.run(first, FakeEngine().encoder(), FakeEngine().scorer())
    data = (output / marker.key).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    published = []
    (output / PUBLISHED).mkdir()
    for planned in run.plans:
        (unit,) = planned.units
        key = f"{UNITS}{unit.id}.{digest}.parquet"
        (output / key).write_bytes(data)
        (output / f"{COMMITS}{unit.id}.json").write_bytes(UnitMarker(unit.id, key, digest, marker.tally).to_bytes())
        shard = PublishedShard(planned.shard.name, len(data), digest, marker.tally)
        (output / shard.name).parent.mkdir(exist_ok=True)
        (output / shard.name).write_bytes(data)
        (output / f"{PUBLISHED}{planned.key}.json").write_bytes(shard.to_bytes())
        published.append(shard)
    return published


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _record_seconds(found: dict[str, Any], what: str, started: tuple[float, float]) -> None:
    """Record wall-clock and CPU seconds: other work on the machine lengthens only the former."""
    wall, cpu = _now()
    found[f"{what}_seconds"] = round(wall - started[0], 1)
    found[f"{what}_cpu_seconds"] = round(cpu - started[1], 1)


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
