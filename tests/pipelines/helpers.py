"""Small datasets and jobs for the pipeline's tests; importable by the processes that those start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.executors.local import LocalExecutor
from pipelines.output.store import open_store
from pipelines.output.tally import Tally
from pipelines.run.engine import Engine
from pipelines.run.job import Job, prepare
from pipelines.sources.columns import Columns
from pipelines.sources.parquet import ParquetSource
from scorer.weights import Method
from tests.pipelines.fake_engine import FakeEngine

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SHARDS = {"a.parquet": 25, "empty.parquet": 0, "sub/b.parquet": 13}
ROWS = sum(SHARDS.values())


def caption_table(rows: int, tag: str = "") -> pa.Table:
    """Captions with multi-byte characters; row 3 has a corrupt image, row 5 no caption."""
    return pa.table(
        {
            "id": pa.array([f"{tag}{i}" for i in range(rows)], pa.string()),
            "image": pa.array([{"bytes": b"corrupt" if i == 3 else b"ok", "path": None} for i in range(rows)], IMAGE),
            "caption": pa.array([None if i == 5 else f"{tag} kite № {i}" for i in range(rows)], pa.string()),
        }
    )


def write_dataset(root: Path, shards: dict[str, int] | None = None) -> Path:
    """A directory of shards with small row groups, so that units and row groups do not coincide."""
    for name, rows in (SHARDS if shards is None else shards).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(caption_table(rows, name), path, row_group_size=7)
    return root


def make_job(input_: Path | str, output: Path | str, engine: Engine | None = None, **options: Any) -> Job:
    """A job on the fake engine, five rows a unit unless said otherwise."""
    columns = options.pop("columns", Columns())
    options.setdefault("rows_per_unit", 5)
    options.setdefault("method", Method())
    return Job(
        input=str(input_),
        source=ParquetSource(str(input_), columns, prompt="Describe."),
        store=open_store(str(output)),
        engine=engine or FakeEngine(),
        **options,
    )


def run(job: Job, watch: RecordingWatch | None = None) -> dict[str, Any]:
    """Run a job in this process."""
    return prepare(job).execute(LocalExecutor(), watch or RecordingWatch())


@dataclass
class RecordingWatch:
    """Remembers what it was told."""

    begun: tuple[int, int] | None = None
    tallies: list[Tally] = field(default_factory=list)
    ended: bool = False

    def begin(self, rows: int, done: int) -> None:
        self.begun = (rows, done)

    def add(self, tally: Tally) -> None:
        self.tallies.append(tally)

    def end(self) -> None:
        self.ended = True

    @property
    def rows(self) -> int:
        return sum(tally.rows for tally in self.tallies)


def published(output: Path, names: Sequence[str] = tuple(SHARDS)) -> dict[str, bytes]:
    """The published files' bytes."""
    return {name: (output / name).read_bytes() for name in names}


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a directory, hidden ones too: its time of modification and its bytes."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
