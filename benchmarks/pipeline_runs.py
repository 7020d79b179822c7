"""Datasets and runs for `pipeline_scale.py`: the Ray pipeline, and the bare loop that it is compared with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.executors.ray_actors import RayExecutor
from pipelines.executors.resources import ActorOptions
from pipelines.output.store import open_store
from pipelines.output.tally import Tally
from pipelines.run.encoding import encode_rows
from pipelines.run.engine import Engine
from pipelines.run.job import Job, prepare
from pipelines.run.scoring import score_rows
from pipelines.sources.columns import Columns
from pipelines.sources.parquet import ParquetSource
from scorer.mini import SAMPLE_PATH
from scorer.weights import Method

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SHARD_ROWS = 50_000
BARE_UNITS = 4


def fake_dataset(root: Path, rows: int, image_bytes: int = 2_000) -> Path:
    """Write a dataset of ten-word captions and images that are never decoded."""
    root.mkdir(parents=True)
    for first in range(0, rows, SHARD_ROWS):
        count = min(SHARD_ROWS, rows - first)
        table = pa.table(
            {
                "image": pa.array([{"bytes": bytes(image_bytes), "path": None}] * count, IMAGE),
                "caption": [f"a red kite over two boats by the lake {first + i}" for i in range(count)],
            }
        )
        pq.write_table(table, root / f"{first // SHARD_ROWS:05}.parquet", row_group_size=1_024)
    return root


def packaged_dataset(root: Path, rows: int) -> Path:
    """Write the packaged sample, repeated and without the rows that fail."""
    root.mkdir(parents=True)
    sample = pa.concat_tables([pq.read_table(path, columns=["image", "caption"]) for path in SAMPLE_PATH.iterdir()])
    good = [
        i for i, row in enumerate(sample.to_pylist()) if row["caption"] and row["image"]["bytes"] and i not in (80, 200)
    ]
    table = pa.concat_tables([sample.take(good)] * (rows // len(good) + 1)).slice(0, rows)
    pq.write_table(table, root / "sample.parquet", row_group_size=64)
    return root


def job(data: Path, output: Path, engine: Engine, rows_per_unit: int) -> Job:
    return Job(
        input=str(data),
        source=ParquetSource(str(data), Columns(), prompt="Describe the image."),
        store=open_store(str(output)),
        engine=engine,
        method=Method(),
        rows_per_unit=rows_per_unit,
    )


class BareLoop:
    """Run the engine alone in this process, on the first units of a dataset."""

    def __init__(self, data: Path, engine: Engine, rows_per_unit: int) -> None:
        source = ParquetSource(str(data), Columns(), prompt="Describe the image.")
        shard = source.shards()[0]
        encoder, self._scorer, self._budget = engine.encoder(), engine.scorer(), engine.max_batch_tokens
        self._rows = source.read(shard, 0, min(shard.rows, BARE_UNITS * rows_per_unit))
        self._units = [
            encode_rows(self._rows[start : start + rows_per_unit], encoder)
            for start in range(0, len(self._rows), rows_per_unit)
        ]
        score_rows(self._units[0], self._scorer, self._budget)  # warms up

    def scored(self) -> float:
        """Return the rows/s of scoring alone, with rows encoded beforehand."""
        started = time.perf_counter()
        for unit in self._units:
            score_rows(unit, self._scorer, self._budget)
        return len(self._rows) / (time.perf_counter() - started)

    def encoded_and_scored(self) -> float:
        """Return the rows/s of an engine that also encodes, in a thread ahead of the model, as a job does."""
        from scorer.engine import Scorer  # imports torch, which memory measurements avoid

        assert isinstance(self._scorer, Scorer)
        started = time.perf_counter()
        self._scorer.score(self._rows, encode_threads=1)
        return len(self._rows) / (time.perf_counter() - started)


def pipeline_run(data: Path, output: Path, engine: Engine, actors: int, rows_per_unit: int) -> dict[str, Any]:
    """Run the whole job on the connected cluster; return its summary and ``steady``, the rows/s of warm actors."""
    watch = EndWatch()
    run = prepare(job(data, output, engine, rows_per_unit))
    summary = run.execute(RayExecutor(ActorOptions(actors=actors, cpus_per_actor=1)), watch)
    return {**summary, "steady": watch.rate_after(actors)}


@contextmanager
def cluster(cpus: int) -> Iterator[None]:
    """Start a cluster with this many logical CPUs on this machine."""
    import ray

    ray.init(address="local", num_cpus=cpus, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def every(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """Call a function periodically in the background of a block."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(seconds):
            call()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class NoWatch:
    """See :class:`pipelines.run.job.Watch`."""

    def begin(self, rows: int, done: int) -> None: ...

    def add(self, tally: Tally) -> None: ...

    def end(self) -> None: ...


class EndWatch(NoWatch):
    """Record when each unit was committed."""

    def __init__(self) -> None:
        self._ends: list[tuple[float, int]] = []

    def add(self, tally: Tally) -> None:
        self._ends.append((max(end for _, end in tally.sessions.values()), tally.rows))

    def rate_after(self, units: int) -> float:
        """Return the rows/s after this many units: an actor's first unit includes the self-check and does not count."""
        ends = sorted(self._ends)
        return sum(rows for _, rows in ends[units:]) / (ends[-1][0] - ends[units - 1][0])
