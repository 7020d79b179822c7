"""Small datasets of every format, and what reading them gives."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipelines.output.store import open_store
from pipelines.run.job import Job
from pipelines.sources import Captions, ReadRow, Source
from pipelines.sources.columns import Columns
from pipelines.sources.formats import open_source
from pipelines.sources.rows import Record
from pipelines.sources.webdataset import WebDataset
from scorer.results import Failure
from scorer.types import Sample
from scorer.weights import Method
from tests.pipelines.fake_engine import FakeEngine

Members = Iterable[tuple[str, bytes]]


def source(url: Path | str, **options: Any) -> Any:
    """A source of any format."""
    format, columns = options.pop("format", None), options.pop("columns", Columns())
    return open_source(str(url), format, columns, prompt="Describe.", **options)


def read_all(src: Source) -> list[ReadRow]:
    return [row for shard in src.shards() for row in src.read(shard, 0, shard.rows)]


def read_units(src: Source, rows: int) -> list[ReadRow]:
    """The same by units, each reader knowing no more of the shard than its own part."""
    return [
        row
        for shard in src.shards()
        for start in range(0, shard.rows, rows)
        for row in src.read(shard.part(start, min(start + rows, shard.rows)), start, min(start + rows, shard.rows))
    ]


def sample(row: ReadRow) -> Sample:
    assert isinstance(row, Sample), row
    return row


def captions(row: ReadRow) -> Captions:
    assert isinstance(row, Captions), row
    return row


def failure(row: ReadRow) -> Failure:
    assert isinstance(row, Failure), row
    return row


def texts(rows: Sequence[ReadRow]) -> list[str]:
    """The one text of every sample."""
    return [sample(row).scored_texts[0] for row in rows]


def make_job(input_: Path | str, output: Path | str, **options: Any) -> Job:
    """A job on the fake engine, three rows a unit."""
    job_options = {key: options.pop(key) for key in ("layout", "on_changed", "engine") if key in options}
    return Job(
        **{"engine": FakeEngine(), **job_options},
        input=str(input_),
        source=source(input_, **options),
        store=open_store(str(output)),
        method=Method(),
        rows_per_unit=3,
    )


def tar_bytes(members: Members, format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of these members, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def sample_members(keys: Iterable[str]) -> list[tuple[str, bytes]]:
    """A picture and a caption for each key, neighbours."""
    return [
        member
        for key in keys
        for member in ((f"{key}.jpg", f"picture {key}".encode()), (f"{key}.txt", f"kite № {key}".encode()))
    ]


KEYS = [f"{i:03}" for i in range(10)]


def write_tar(folder: Path, members: Members, name: str = "train-000.tar", **options: Any) -> Path:
    path = folder / name
    path.write_bytes(tar_bytes(members, **options))
    return path


def tar_records(rows: int, data: bytes) -> list[Record]:
    """The records of a tar, by units of ``rows``."""
    format = WebDataset()
    index = format.index(io.BytesIO(data))
    found: list[Record] = []
    for start in range(0, len(index), rows):
        extent = index.extent(start, min(start + rows, len(index)))
        found += format.records([data[first:last] for first, last in extent.runs], extent, None)
        assert len(found) == extent.stop
    return found
