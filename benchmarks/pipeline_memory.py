"""The part of `pipeline_scale.py` that measures memory of the driver and its actors, in one run in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

ROWS_PER_UNIT: Final = 1_024


def measure(folder: Path, rows: int) -> dict[str, Any]:
    """Return the peak resident megabytes of each kind of process while scoring ``rows`` rows, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.pipeline_memory", str(folder), str(rows)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _measure(folder: Path, rows: int) -> dict[str, Any]:
    import psutil

    from benchmarks.pipeline_runs import cluster, every, fake_dataset, pipeline_run
    from tests.pipelines.fake_engine import FakeEngine

    data = fake_dataset(folder / "data", rows)
    peaks: dict[str, float] = defaultdict(float)
    me = psutil.Process()

    def look() -> None:
        peaks["driver"] = max(peaks["driver"], private_mb(me))
        for process in me.children(recursive=True):
            try:
                name = process.cmdline()[0] if process.cmdline() else ""
                for kind in ("EncodeActor", "ScoreActor"):
                    if kind in name:
                        peaks[kind] = max(peaks[kind], private_mb(process))
            except psutil.Error:  # the process has ended
                continue

    with cluster(cpus=4), every(0.5, look):
        started = time.perf_counter()
        summary = pipeline_run(data, folder / "out", FakeEngine(), 1, ROWS_PER_UNIT)
        seconds = time.perf_counter() - started
    assert summary["rows"] == rows
    return {
        "driver_mb": round(peaks["driver"]),
        "encoder_mb": round(peaks["EncodeActor"]),
        "scorer_mb": round(peaks["ScoreActor"]),
        "units": -(-rows // ROWS_PER_UNIT),
        "rows_per_second": round(rows / seconds),
        "microseconds_per_row": round(1e6 * summary["seconds_scoring"] / rows),
    }


def private_mb(process: Any) -> float:
    """Return resident memory without shared pages, since the object store is mapped into every process."""
    info = process.memory_info()
    return float(info.rss - info.shared) / 1e6


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(json.dumps(_measure(Path(sys.argv[1]), int(sys.argv[2]))))
