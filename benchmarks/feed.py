"""Measure how well encoders feed an actor through Ray, and what memory that takes, whatever a unit is.

    python -m benchmarks.feed [--only encoders,driver,memory,speed] [--against CHECKOUT]

    encoders    encoders at work, of six that feed one actor, with units of 1.5 × the bytes that may wait; and, to show
                that this is measured, with next to no bytes that may wait
    driver      CPU of the driver for each unit that it hands out
    memory      peak memory of encoder, actor and driver at 4,096 rows of 6 MB a unit, and of the object store
    speed       rows/s of one actor with the packaged model ÷ the same command of another checkout, run in turns; only
                with --against

Rows are synthetic in the first two parts; reading, encoding in blocks, scoring as rows arrive and committing are the
job's own. Results go to `benchmarks/results/feed.json`. The exit status is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from benchmarks.feed_engine import HeavyEngine
from benchmarks.pipeline_memory import private_mb
from benchmarks.pipeline_runs import NoWatch, cluster, every, fake_dataset, job, packaged_dataset
from pipelines.executors.ray_actors import BYTES_AHEAD, RayExecutor
from pipelines.executors.resources import ActorOptions
from pipelines.run.job import prepare
from tests.pipelines.fake_engine import FakeEngine

RESULT: Final = Path(__file__).parent / "results" / "feed.json"
ENCODERS: Final = 6
ROW_BYTES: Final = 6_000_000
ENCODE_SECONDS: Final = 0.25
UNITS: Final = 2
ROUNDS: Final = 3
CONTROL_ROWS: Final = 64
UNIT_ROWS: Final = 4_096
PAIRS: Final = 5
SPEED_ROWS: Final = 960
MOST_UNITS: Final = 2_000
AT_WORK: Final = 5.5
ENCODER_MB: Final = 2_000.0
SPEED: Final = 0.95


def encoders(folder: Path, against: Path | None) -> dict[str, Any]:
    rows = round(1.5 * BYTES_AHEAD / ROW_BYTES)
    data = fake_dataset(folder / "data", UNITS * rows)
    found: dict[str, Any] = {"rows_per_unit": rows, "row_bytes": ROW_BYTES, "encode_seconds_per_row": ENCODE_SECONDS}
    few = fake_dataset(folder / "few", CONTROL_ROWS)
    with cluster(cpus=ENCODERS + 2):
        rounds = [_at_work(data, folder / f"out-{i}", rows, BYTES_AHEAD) for i in range(ROUNDS)]
        found["at_work_with_next_to_no_bytes_ahead"] = _at_work(few, folder / "control", rows, 2 * ROW_BYTES)
    found["at_work"], found["at_work_range"] = statistics.median(rounds), [min(rounds), max(rounds)]
    found["met"] = found["at_work"] >= AT_WORK > found["at_work_with_next_to_no_bytes_ahead"]
    return found


def _at_work(data: Path, output: Path, rows_per_unit: int, bytes_ahead: int) -> float:
    """Return the mean number of encoders that were encoding a row, from a tenth of the rows to nine tenths.

    Packing a block and handing it over does not count as work.
    """
    log = output.with_suffix(".log")
    engine = HeavyEngine(
        row_bytes=ROW_BYTES,
        encode_seconds=ENCODE_SECONDS,
        seconds_per_row=0.9 * ENCODE_SECONDS / ENCODERS,
        log=str(log),
    )
    options = ActorOptions(actors=1, cpus_per_actor=1, encoders=ENCODERS)
    run = prepare(job(data, output, engine, rows_per_unit))
    run.execute(RayExecutor(options, bytes_ahead=bytes_ahead), NoWatch())
    spans = sorted(tuple(map(float, line.split())) for line in log.read_text().splitlines())
    since, until = spans[len(spans) // 10][0], spans[len(spans) * 9 // 10][0]
    worked = sum(max(0.0, min(end, until) - max(begin, since)) for begin, end in spans)
    return round(worked / (until - since), 2)


def memory(folder: Path, against: Path | None) -> dict[str, Any]:
    """Measure in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.feed", "--measure-memory", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    found["met"] = found["encoder_mb"] <= ENCODER_MB
    return found


def _measure_memory(folder: Path) -> dict[str, Any]:
    import psutil

    data = fake_dataset(folder / "data", UNIT_ROWS * 3 // 2)
    peaks: dict[str, float] = defaultdict(float)
    me = psutil.Process()
    before = shutil.disk_usage("/dev/shm").used

    def look() -> None:
        peaks["driver"] = max(peaks["driver"], private_mb(me))
        peaks["store"] = max(peaks["store"], (shutil.disk_usage("/dev/shm").used - before) / 1e6)
        for process in me.children(recursive=True):
            try:
                name = process.cmdline()[0] if process.cmdline() else ""
                for kind in ("EncodeActor", "ScoreActor"):
                    if kind in name:
                        peaks[kind] = max(peaks[kind], private_mb(process))
            except psutil.Error:  # the process has ended
                continue

    with cluster(cpus=4), every(0.1, look):
        started = time.perf_counter()
        run = prepare(job(data, folder / "out", HeavyEngine(row_bytes=ROW_BYTES), UNIT_ROWS))
        run.execute(RayExecutor(ActorOptions(actors=1, cpus_per_actor=1, encoders=2)), NoWatch())
        seconds = time.perf_counter() - started
    return {
        "rows_per_unit": UNIT_ROWS,
        "row_bytes": ROW_BYTES,
        "unit_mb": round(UNIT_ROWS * ROW_BYTES / 1e6),
        "encoder_mb": round(peaks["EncodeActor"]),
        "actor_mb": round(peaks["ScoreActor"]),
        "driver_mb": round(peaks["driver"]),
        "object_store_mb": round(peaks["store"]),
        "rows_per_second": round(UNIT_ROWS * 1.5 / seconds),
    }


def driver(folder: Path, against: Path | None) -> dict[str, Any]:
    """Compare two runs that differ in their number of units alone."""
    data = fake_dataset(folder / "data", MOST_UNITS)
    seconds = {}
    with cluster(cpus=4):
        for units in (MOST_UNITS // 10, MOST_UNITS):
            run = prepare(job(data, folder / f"out-{units}", FakeEngine(), MOST_UNITS // units))
            executor = RayExecutor(ActorOptions(actors=1, cpus_per_actor=1, encoders=1))
            before = time.process_time()
            for _ in executor.score(run.work, run.pending):
                pass
            seconds[units] = time.process_time() - before
    fewer, more = seconds.values()
    return {"units": MOST_UNITS, "ms_per_unit": round(1000 * (more - fewer) / (0.9 * MOST_UNITS), 2), "met": True}


def speed(folder: Path, against: Path | None) -> dict[str, Any]:
    """Run the command of both checkouts in turns; compare each run with those of the other before and after it."""
    assert against is not None
    data = packaged_dataset(folder / "data", SPEED_ROWS)
    rates: dict[str, list[float]] = {"here": [], "there": []}
    costs: dict[str, list[float]] = {"here": [], "there": []}
    places = {"here": Path(__file__).parents[1], "there": against.resolve()}
    for turn in range(PAIRS):
        for name in ("there", "here") if turn % 2 else ("here", "there"):
            rate, cost = _command(places[name], data, folder / f"out-{name}-{turn}")
            rates[name].append(rate)
            costs[name].append(cost)
            print(f"  {name}: {rate:.1f} rows/s, {cost:.1f} CPU seconds", flush=True)
    found: dict[str, Any] = {"rows": SPEED_ROWS, "pairs": PAIRS}
    for name in rates:
        found[f"rows_per_second_{name}"] = [round(rate, 1) for rate in rates[name]]
        found[f"cpu_seconds_{name}"] = [round(cost, 1) for cost in costs[name]]
    for kind, values in (("speed", rates), ("cpu", costs)):
        ratios = [here / there for here, there in zip(values["here"], values["there"], strict=True)]
        found[f"{kind}_here_over_there"] = round(statistics.median(ratios), 3)
        found[f"{kind}_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    found["met"] = found["speed_here_over_there"] >= SPEED
    return found


def _command(checkout: Path, data: Path, output: Path) -> tuple[float, float]:
    """Score with a checkout's command; return rows/s of the run, and CPU seconds of the command and all it started."""
    import psutil

    command = [sys.executable, "-m", "pipelines.score_dataset", "--input", str(data), "--output", str(output)]
    command += ["--actors", "1", "--rows-per-unit", "64", "--device", "cpu", "--no-report"]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    spent: dict[tuple[int, float], float] = {}  # by process
    with subprocess.Popen(
        command, cwd=checkout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as run:
        top = psutil.Process(run.pid)

        def look() -> None:
            with suppress(psutil.Error):
                for process in (top, *top.children(recursive=True)):
                    with suppress(psutil.Error):  # it has ended
                        times = process.cpu_times()
                        spent[process.pid, process.create_time()] = times.user + times.system

        with every(0.5, look):
            said, _ = run.communicate()
    assert run.returncode == 0, said.decode()
    return json.loads((output / "_SUCCESS").read_text())["rows_per_second"], sum(spent.values())


PARTS: dict[str, Callable[[Path, Path | None], dict[str, Any]]] = {
    "encoders": encoders,
    "driver": driver,
    "memory": memory,
    "speed": speed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="parts, separated by commas (default: all that can run)")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="the other checkout of the part speed")
    parser.add_argument("--measure-memory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if options.measure_memory is not None:
        print(json.dumps(_measure_memory(options.measure_memory)))
        return
    able = [name for name in PARTS if name != "speed" or options.against is not None]
    chosen = options.only.split(",") if options.only else able
    for name in chosen:
        if name not in able:
            need = "needs --against" if name in PARTS else f"is none; choose from {', '.join(PARTS)}"
            parser.error(f"the part {name!r} {need}")
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in chosen:
        with tempfile.TemporaryDirectory(prefix="feed-", ignore_cleanup_errors=True) as folder:
            results[name] = PARTS[name](Path(folder), options.against)
        results[name]["load_of_the_machine"] = round(os.getloadavg()[1], 1)
        RESULT.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
        print(name)
        for key, value in results[name].items():
            print(f"  {key:<40} {value}", flush=True)
    sys.exit(0 if all(results[name]["met"] for name in chosen) else 1)


if __name__ == "__main__":
    main()
