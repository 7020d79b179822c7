"""Measure what reading all units of a shard of one large row group costs, from its place and from the start each time.

    python -m benchmarks.parquet_reading

Writes ``benchmarks/results/parquet_reading.json``: seconds for all units, for the first and for the last, and the peak
memory, of a source that keeps its place and of one that begins its row group again for each unit.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.sources.columns import Columns
from pipelines.sources.parquet import ParquetSource

OUTPUT = Path("benchmarks/results/parquet_reading.json")


def write(path: Path, rows: int, image_bytes: int) -> None:
    """Write one row group of incompressible images and short captions."""
    rng = np.random.default_rng(0)
    images = pa.array([{"bytes": rng.bytes(image_bytes), "path": None} for _ in range(rows)])
    captions = pa.array([f"A red kite over boat {i}." for i in range(rows)])
    pq.write_table(pa.table({"image": images, "caption": captions}), path, row_group_size=rows)


def read(path: Path, rows_per_unit: int, keep: bool) -> dict[str, Any]:
    """Read every unit in order, in this process."""
    source = ParquetSource(str(path), Columns(), prompt="Describe.")
    (shard,) = source.shards()
    seconds = []
    for start in range(0, shard.rows, rows_per_unit):
        if not keep:
            source = ParquetSource(str(path), Columns(), prompt="Describe.")
            source.shards()
        started = time.perf_counter()
        rows = source.read(shard, start, min(start + rows_per_unit, shard.rows))
        seconds.append(time.perf_counter() - started)
        assert len(rows) == min(rows_per_unit, shard.rows - start)
    return {
        "seconds": round(sum(seconds), 2),
        "first_unit": round(seconds[0], 3),
        "last_unit": round(seconds[-1], 3),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--image-bytes", type=int, default=12_000)
    parser.add_argument("--rows-per-unit", type=int, default=256)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read is not None:
        print(json.dumps(read(options.read, options.rows_per_unit, options.keep)))
        return
    found: dict[str, Any] = {name: getattr(options, name) for name in ("rows", "image_bytes", "rows_per_unit")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        write(path, options.rows, options.image_bytes)
        for name, keep in (("from_the_start", []), ("from_its_place", ["--keep"])):  # a process each, for its peak
            command = [sys.executable, "-m", "benchmarks.parquet_reading", "--read", str(path), *keep]
            command += ["--rows-per-unit", str(options.rows_per_unit)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            found[name] = json.loads(done.stdout)
    print(json.dumps(found, indent=1))
    OUTPUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
