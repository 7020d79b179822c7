"""Outputs of finished runs on the fake model, and the ways to damage them; for the tests that look at outputs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.executors.local import LocalExecutor
from pipelines.output.check import check
from pipelines.output.commit import PublishedShard
from pipelines.output.contents import Problem, look
from pipelines.output.store import open_store
from pipelines.run.job import prepare
from tests.pipelines.helpers import make_job


def published_marker(output: Path, name: str) -> Path:
    """The file of a published shard's marker."""
    (found,) = [p for p in (output / "_published").iterdir() if json.loads(p.read_text())["name"] == name]
    return found


def rewrite(output: Path, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a published file's rows and make its marker and ``_SUCCESS`` fit: only the rows tell that it is wrong."""
    path = output / name
    pq.write_table(change(pq.read_table(path)), path)
    refit(output, name)


def refit(output: Path, name: str) -> None:
    """Make marker and ``_SUCCESS`` agree with the bytes of a published file."""
    import hashlib

    data = (output / name).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    marker = published_marker(output, name)
    old = PublishedShard.from_bytes(marker.read_bytes())
    marker.write_bytes(PublishedShard(name, len(data), digest, old.tally).to_bytes())
    if (output / "_SUCCESS").exists():
        summary = json.loads((output / "_SUCCESS").read_text())
        for shard in summary["shards"]:
            if shard["name"] == name:
                shard.update(bytes=len(data), sha256=digest)
        (output / "_SUCCESS").write_text(json.dumps(summary))


def with_value(column: str, row: int, value: Any) -> Callable[[pa.Table], pa.Table]:
    """A change of one cell."""

    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[row] = value(values[row]) if callable(value) else value
        at = table.schema.get_field_index(column)
        field = table.schema.field(column).with_nullable(True)
        return table.set_column(at, field, pa.array(values, field.type))

    return change


def stop_after(units: int, dataset: Path, output: Path | str) -> None:
    """A run that ends early: some units are committed, and whole shards published."""
    run = prepare(make_job(dataset, output))
    executor = LocalExecutor()
    done = 0
    for planned in run.plans:
        chosen: Sequence[Any] = planned.units[: max(0, units - done)]
        done += len(chosen)
        for _ in executor.score(run.work, chosen):
            pass
        if len(chosen) == len(planned.units):
            executor.publish(run.work, planned).result()


def age(path: Path, hours: float) -> None:
    """Make a file, or every file below a folder, so old."""
    then = time.time() - 3600 * hours
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        os.utime(file, (then, then))


def problems(output: Path | str, *, quick: bool = False) -> list[Problem]:
    return list(check(look(open_store(str(output))), lambda _: None, quick=quick))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(bytes(data))


def edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))
