"""Measure the cost of the Ray pipeline itself, at scale, with an engine whose cost per row is fixed.

    python -m benchmarks.pipeline_scale [--only overhead,packaged,memory,planning] [--actors 1,2,4,8]

    overhead    rows/s of 1, 2, 4 and 8 logical actors ÷ the same number of bare loops, both without startup
    packaged    rows/s of one actor with the packaged model ÷ the engine in one process, each with one core for the
                model: the engine that also encodes, as the job does, and its scoring alone
    memory      resident memory of driver and actors for 10,000, 100,000 and 1,000,000 rows
    planning    100,000 shards listed, planned and resumed; the objects that their run writes

Logical actors wait instead of computing, so eight of them fit on two cores and only the pipeline's own cost remains.
Results go to `benchmarks/results/pipeline_scale.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import pipeline_memory, pipeline_planning
from benchmarks.pipeline_runs import BareLoop, cluster, fake_dataset, packaged_dataset, pipeline_run
from pipelines.cli.options import packaged_model
from pipelines.run.engine import CheckpointEngine, Engine
from scorer.config import ScorerConfig
from tests.pipelines.fake_engine import FakeEngine

RESULT = Path(__file__).parent / "results" / "pipeline_scale.json"
PAIRS = 5
ACTORS = (1, 2, 4, 8)
SECONDS_PER_ROW = 0.004
UNITS_PER_ACTOR = 12
ROWS_PER_UNIT = 256
PACKAGED_ROWS = 960
SHARDS = 100_000
ROWS = (10_000, 100_000, 1_000_000)


def overhead(folder: Path, numbers: Sequence[int] = ACTORS) -> dict[str, Any]:
    """Return, by number of actors, rows/s and their share of the bare loops' rows/s, and the load of the machine."""
    engine = FakeEngine(seconds_per_row=SECONDS_PER_ROW)
    found: dict[str, Any] = {"seconds_per_row": SECONDS_PER_ROW, "rows_per_unit": ROWS_PER_UNIT}
    for actors in numbers:
        data = fake_dataset(folder / f"data-{actors}", actors * UNITS_PER_ACTOR * ROWS_PER_UNIT)
        with cluster(cpus=actors + 2):
            loops = {"bare": BareLoop(data, engine, ROWS_PER_UNIT).scored}
            measured = _pairs(data, folder, engine, actors, ROWS_PER_UNIT, loops)
        found[f"{actors}_actors"] = {**measured, "load_of_the_machine": round(os.getloadavg()[1], 1)}
        print(f"  {actors} actors: {found[f'{actors}_actors']}", flush=True)
    return found


def packaged(folder: Path) -> dict[str, Any]:
    """Compare job and engine with the packaged model on one thread; the other of two cores is free to encode."""
    engine = CheckpointEngine(packaged_model(), ScorerConfig(device="cpu"))
    data = packaged_dataset(folder / "data", PACKAGED_ROWS)
    bare = BareLoop(data, engine, 64)
    loops = {"bare": bare.scored, "engine": bare.encoded_and_scored}
    with cluster(cpus=2):
        return _pairs(data, folder, engine, 1, 64, loops)


def memory(folder: Path) -> dict[str, Any]:
    return {f"{rows}_rows": pipeline_memory.measure(folder / str(rows), rows) for rows in ROWS}


def planning(folder: Path) -> dict[str, Any]:
    return pipeline_planning.measure(folder, SHARDS)


def _pairs(
    data: Path,
    folder: Path,
    engine: Engine,
    actors: int,
    rows_per_unit: int,
    loops: Mapping[str, Callable[[], float]],
) -> dict[str, Any]:
    """Run bare loops and pipeline in turn, and compare each run with the loops before and after it."""
    rates: list[float] = []
    ratios: dict[str, list[float]] = {name: [] for name in loops}
    before = {name: loop() for name, loop in loops.items()}
    for pair in range(PAIRS):
        output = folder / f"out-{data.name}-{pair}"
        rates.append(pipeline_run(data, output, engine, actors, rows_per_unit)["steady"])
        for name, loop in loops.items():
            after = loop()
            ratios[name].append(2 * rates[-1] / (before[name] + after) / actors)
            before[name] = after
    found: dict[str, Any] = {"rows_per_second": round(statistics.median(rates), 1), "pairs": PAIRS}
    for name, values in ratios.items():
        found[f"share_of_{name}"] = round(statistics.median(values), 3)
        found[f"range_of_{name}"] = [round(min(values), 3), round(max(values), 3)]
    return found


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "overhead": overhead,
    "packaged": packaged,
    "memory": memory,
    "planning": planning,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--actors", default=",".join(map(str, ACTORS)), help="numbers of actors of the part overhead")
    options = parser.parse_args()
    chosen = options.only.split(",")
    unknown = sorted(set(chosen) - PARTS.keys())
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in chosen:
        started, cpu = time.perf_counter(), time.process_time()
        with tempfile.TemporaryDirectory(prefix="scale-", ignore_cleanup_errors=True) as folder:
            if name == "overhead":  # other numbers of actors keep their figures
                found = overhead(Path(folder), [int(number) for number in options.actors.split(",")])
                results[name] = {**results.get(name, {}), **found}
            else:
                results[name] = PARTS[name](Path(folder))
        results[name]["load_of_the_machine"] = round(os.getloadavg()[1], 1)
        RESULT.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
        seconds = (
            f"{time.perf_counter() - started:.0f} s, including {time.process_time() - cpu:.0f} s of CPU in this process"
        )
        print(f"{name} ({seconds})")
        for key, value in results[name].items():
            print(f"  {key:<28} {value}", flush=True)


if __name__ == "__main__":
    main()
