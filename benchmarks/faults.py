"""Test the fault model at scale: count the kills, races and failed requests, and what they cost.

    python -m benchmarks.faults [--only points,bfloat16,stops,processes,ray,proxy]

    points      1,000 kills and 200 races at the protocol's steps, in one process (seeded, reproducible)
    bfloat16    the same on the packaged model in bfloat16, whose scores depend on which rows share a batch
    stops       the command, stopped twice and five times in one unit by SIGINT, SIGTERM and SIGKILL, on that model,
                in one process and through Ray
    processes   100 runs killed by SIGKILL at a counted system call, each finished by a second run
    ray         30 kills through Ray: drivers, actors, nodes and raylets in turn
    proxy       10 jobs on OpenStack Swift through a proxy that makes a tenth of the requests fail

Every part checks that the published files are, byte for byte, those of an undisturbed run, and stops if they are not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.faults import fault_points
from tests.pipelines.helpers import SHARDS, make_job, published, run, write_dataset

RESULT = Path(__file__).parent / "results" / "faults.json"
KILLS, RACES, PROCESS_KILLS, RAY_KILLS, PROXY_JOBS = 1_000, 200, 100, 30, 10
STOPS = (2, 5)
"""Stops of one unit: two are taken for a row's fault if nothing tells them apart."""


def points(folder: Path) -> dict[str, Any]:
    return _points(fault_points.make_stage(write_dataset(folder / "data", fault_points.SHARDS)))


def bfloat16(folder: Path) -> dict[str, Any]:
    from tests.pipelines.faults.packaged import LoadedEngine, write_pictures

    pictures = write_pictures(folder / "data", fault_points.SHARDS)
    return _points(fault_points.make_stage(pictures, LoadedEngine()))


def _points(stage: fault_points.Stage) -> dict[str, Any]:
    started = time.process_time()
    killed = fault_points.kill_many(stage, KILLS, seed=0)
    between = time.process_time()
    for seed in range(RACES):
        race = fault_points.race(stage, seed)
        stage.assert_exact(race.objects)
        assert set(race.winners.values()) == {1}
    return {
        **killed,
        "moments": stage.moments,
        "kill_cpu_seconds": round(between - started, 1),
        "races": RACES,
        "commits_per_unit": 1,
        "race_cpu_seconds": round(time.process_time() - between, 1),
    }


def stops(folder: Path) -> dict[str, Any]:
    from tests.conftest import ROOT
    from tests.pipelines.faults.packaged import write_pictures
    from tests.pipelines.faults.stops import SHARDS, STATUS, Stopped
    from tests.ray_head import started_head

    pictures = write_pictures(folder / "data", SHARDS)
    whole = Stopped(pictures, folder / "whole").finish()
    stopped, started = Counter[str](), time.perf_counter()
    with started_head(ROOT) as head:
        for executor, where in {"local": {}, "ray": {**head.environment, "RAY_ADDRESS": head.address}}.items():
            for one, status in STATUS.items():
                for times in STOPS:
                    output = folder / f"{executor}-{one.name}-{times}"
                    command = Stopped(pictures, output, ("--executor", executor), where)
                    for _ in range(times):
                        assert command.stop(one) == status, command.said[-1]
                        stopped[f"{executor}_{one.name}"] += 1
                    assert command.finish() == whole, f"{output.name}: other bytes"
                    print(f"stops: {output.name}", flush=True)
    return {**stopped, "seconds": round(time.perf_counter() - started, 1)}


def processes(folder: Path) -> dict[str, Any]:
    from tests.pipelines.faults.killing import Doomed, nursery

    dataset, count = write_dataset(folder / "data"), folder / "moments"
    started = time.perf_counter()
    with nursery() as forks:
        assert forks.run(Doomed(str(dataset), str(folder / "whole"), moments_file=str(count))) == [0]
        moments = int(count.read_text())
        for seed in range(PROCESS_KILLS):
            output = folder / f"out-{seed}"
            fatal = random.Random(seed).randrange(moments)
            assert forks.run(Doomed(str(dataset), str(output), fatal=fatal)) == [-signal.SIGKILL]
            run(make_job(dataset, output))
            assert published(output) == published(folder / "whole")
    return {"kills": PROCESS_KILLS, "moments": moments, "seconds": round(time.perf_counter() - started, 1)}


def ray(folder: Path) -> dict[str, Any]:
    from tests.pipelines.faults.ray_kills import KINDS, Campaign

    shards = {"a.parquet": 150, "b.parquet": 90, "empty.parquet": 0}
    dataset = write_dataset(folder / "data", shards)
    run(make_job(dataset, folder / "whole"))
    killed, again, started = Counter[str](), 0, time.perf_counter()
    for seed in itertools.count():
        left = RAY_KILLS - killed.total()
        if left <= 0:
            break
        kinds = [KINDS[(killed.total() + i) % len(KINDS)] for i in range(min(left, 10))]
        (folder / str(seed)).mkdir()
        campaign = Campaign(dataset, folder / str(seed), kinds, seed)
        campaign.run()
        assert published(campaign.output, list(shards)) == published(folder / "whole", list(shards))
        killed += campaign.killed
        again += campaign.rows_scored - sum(shards.values())
        print(f"ray: {killed.total()} kills", flush=True)
    return {
        "kills": killed.total(),
        **killed,
        "rows_scored_again": again,
        "rows_per_unit": 5,
        "actors": 2,
        "seconds": round(time.perf_counter() - started, 1),
    }


def proxy(folder: Path) -> dict[str, Any]:
    from pipelines.output.store.object_store import ObjectStore
    from tests.stores import swift
    from tests.stores.conftest import new_bucket
    from tests.stores.proxy import faulting

    dataset = write_dataset(folder / "data")
    run(make_job(dataset, folder / "whole"))
    faults, requests, seconds = Counter[str](), 0, 0.0
    with pytest.MonkeyPatch.context() as patched, swift.running(folder / "swift") as endpoint:
        for seed in range(PROXY_JOBS):
            url = f"{new_bucket(endpoint, patched)}/out"
            with faulting(endpoint.url, seed=seed) as spoiling:
                endpoint.use(patched, AWS_ENDPOINT_URL=spoiling.url)
                started = time.perf_counter()
                run(make_job(dataset, url))
                seconds += time.perf_counter() - started
            endpoint.use(patched)
            assert {name: ObjectStore(url).get(name) for name in SHARDS} == published(folder / "whole")
            faults += spoiling.faults
            requests += spoiling.requests
    return {"jobs": PROXY_JOBS, "requests": requests, "faults": dict(faults), "seconds": round(seconds, 1)}


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "points": points,
    "bfloat16": bfloat16,
    "stops": stops,
    "processes": processes,
    "ray": ray,
    "proxy": proxy,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    chosen = parser.parse_args().only.split(",")
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in chosen:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            results[name] = PARTS[name](Path(folder))
        RESULT.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
        print(f"{name:<10} " + ", ".join(f"{key} {value}" for key, value in results[name].items()), flush=True)


if __name__ == "__main__":
    main()
