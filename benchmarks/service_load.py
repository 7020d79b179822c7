"""Measure the HTTP service under load, over loopback and with a fixed number of requests.

    python -m benchmarks.service_load [--only throughput,engine,overload,disconnect,sigterm,replicas]

    throughput  32 clients against one request at a time, on the same server
    engine      the engine alone (decode, encode, score; no HTTP) against 32 clients
    overload    10,000 requests at ten times the rate that the server can sustain: rejections, /health/live, accepted
                requests, resident memory over time
    disconnect  90 of 100 clients leave while they wait: how much is still computed for them
    sigterm     SIGTERM while 32 clients send: requests accepted but not answered
    replicas    throughput and overload through Ray Serve with one and with two replicas

Every part starts its own server with the packaged model, contrast ``blank`` and defaults otherwise. The load generator
runs on the same cores. The two sides of a pair run in turn; figures are medians and ranges of five pairs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks import http_load
from benchmarks.http_load import Connection, Tally, bodies, closed_loop, metrics, open_loop, samples, watch_live
from scorer import Scorer
from scorer.mini import MODEL_PATH
from tests.service.process import Process, service_process

RESULT = Path(__file__).parent / "results" / "service_load.json"
PAIRS, CLIENTS, OVERLOAD = 5, 32, 10
ALONE, TOGETHER, OVERLOADING, OVERLOADING_REPLICAS = 16, 128, 10_000, 2_000
CORES = len(os.sched_getaffinity(0))
OPTIONS = ("--contrasts", "blank", "--torch-threads", str(CORES))

Part = Callable[[], Coroutine[Any, Any, dict[str, Any]]]


@contextmanager
def server(*further: str) -> Iterator[Process]:
    with service_process(*OPTIONS, *further) as process:
        process.wait_until_ready()
        yield process


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "least": round(min(values), 2),
        "most": round(max(values), 2),
    }


async def warm(port: int) -> None:
    await closed_loop(port, 8, bodies(16))


async def paired_throughput(port: int) -> dict[str, Any]:
    await warm(port)
    alone, together, ratios = [], [], []
    for _ in range(PAIRS):
        one, one_rate = await closed_loop(port, 1, bodies(ALONE))
        many, many_rate = await closed_loop(port, CLIENTS, bodies(TOGETHER))
        assert one.count(200) == ALONE and many.count(200) == TOGETHER, (one.seconds.keys(), many.seconds.keys())
        alone.append(one_rate)
        together.append(many_rate)
        ratios.append(many_rate / one_rate)
    return {"alone_per_s": spread(alone), "clients_32_per_s": spread(together), "ratio": spread(ratios)}


async def throughput() -> dict[str, Any]:
    with server() as process:
        found = await paired_throughput(process.live.port)
        alone = await cpu_ms(process, 1, ALONE)
        together = await cpu_ms(process, CLIENTS, TOGETHER)
    return {**found, "cpu_ms_alone": alone, "cpu_ms_32": together}


async def cpu_ms(process: Process, clients: int, count: int) -> float:
    """Return the server's CPU time per request in milliseconds, over all its threads."""
    before = process.cpu_seconds
    await closed_loop(process.live.port, clients, bodies(count))
    return round(1e3 * (process.cpu_seconds - before) / count, 1)


async def engine() -> dict[str, Any]:
    torch.set_num_threads(CORES)
    scorer = Scorer.load(MODEL_PATH)
    rows = samples(TOGETHER)
    scorer.score(rows[:16])
    bare, http, ratios = [], [], []
    with server() as process:
        await warm(process.live.port)
        for _ in range(PAIRS):
            started = time.perf_counter()
            await asyncio.to_thread(scorer.score, rows)
            bare.append(TOGETHER / (time.perf_counter() - started))
            _, rate = await closed_loop(process.live.port, CLIENTS, bodies(TOGETHER))
            http.append(rate)
            ratios.append(rate / bare[-1])
    return {"engine_per_s": spread(bare), "http_per_s": spread(http), "http_over_engine": spread(ratios)}


async def overloaded(port: int, count: int, resident: Callable[[], int] | None = None) -> dict[str, Any]:
    await warm(port)
    _, rate = await closed_loop(port, CLIENTS, bodies(96))
    live, tally, memory = Tally(), Tally(), list[int]()
    watching = asyncio.ensure_future(watch_live(port, live))
    started = time.perf_counter()
    loading = asyncio.ensure_future(open_loop(port, OVERLOAD * rate, bodies(count), tally))
    while not loading.done():
        await asyncio.sleep(0.5)
        if resident is not None:
            memory.append(resident() // 2**20)
    await loading
    seconds = time.perf_counter() - started
    watching.cancel()
    await asyncio.wait([watching])
    found = {
        "capacity_per_s": round(rate, 1),
        "sent": count,
        "sent_per_s": round(OVERLOAD * rate, 1),
        "seconds": round(seconds, 1),
        "scored": tally.count(200),
        "rejected": tally.count(429) + tally.count(503),
        "other": tally.other,
        "unanswered": tally.unanswered,
        "reject_p50_ms": round(tally.percentile(50, 429, 503), 1),
        "reject_p99_ms": round(tally.percentile(99, 429, 503), 1),
        "live_p99_ms": round(live.percentile(99, 200), 1),
        "live_asked": live.count(200),
    }
    if memory:
        tenths = [memory[i * (len(memory) - 1) // 9] for i in range(10)]
        found |= {"resident_mib": tenths}
    return found


async def overload() -> dict[str, Any]:
    with server("--queue-size", "64") as process:
        port = process.live.port
        found = await overloaded(port, OVERLOADING, lambda: process.resident_bytes)
        logged = [entry for entry in process.log if entry["message"] == "request" and entry["status"] == 429]
        times = sorted(entry["ms"] for entry in logged)
    return {**found, "reject_p99_ms_in_the_server": times[int(0.99 * len(times))]}


async def disconnect() -> dict[str, Any]:
    with server("--max-batch-rows", "16") as process:
        port = process.live.port
        await warm(port)
        before = await metrics(port)
        connections = [Connection(port) for _ in range(100)]
        for connection, body in zip(connections, bodies(100), strict=True):
            await connection.send("POST", "/v1/score", body)
        for connection in connections[10:]:
            connection.close()
        statuses = [(await connection.receive())[0] for connection in connections[:10]]
        while (after := await metrics(port))["tokensight_queue_depth"]:
            await asyncio.sleep(0.05)
    rows = after["tokensight_batch_rows_sum"] - before["tokensight_batch_rows_sum"]
    return {
        "sent": 100,
        "left": 90,
        "answered": statuses.count(200),
        "computed": int(rows),
        "computed_for_nobody": int(rows) - 10,
        "batch_rows": 16,
    }


async def sigterm() -> dict[str, Any]:
    with service_process(*OPTIONS) as process:
        port = process.wait_until_ready().port
        await warm(port)
        requests, sent, answered = bodies(CLIENTS), set[str](), dict[str, int]()

        async def client(i: int) -> None:
            connection = Connection(port)
            for k in range(10_000):
                name = f"client-{i}-{k}"
                try:
                    sent.add(name)
                    answered[name], _ = await connection.ask("POST", "/v1/score", requests[i], name)
                except (OSError, asyncio.IncompleteReadError):
                    return

        clients = [asyncio.ensure_future(client(i)) for i in range(CLIENTS)]
        await asyncio.sleep(5)
        process.terminate()
        started = time.perf_counter()
        await asyncio.gather(*clients)
        await asyncio.to_thread(process.wait)
        ended = time.perf_counter() - started
    taken_in = {entry["request_id"] for entry in process.log if entry["message"] == "request"}
    lost = [name for name in taken_in & sent if answered.get(name) != 200]
    return {
        "sent": len(sent),
        "answered": list(answered.values()).count(200),
        "other_statuses": sum(status != 200 for status in answered.values()),
        "refused_at_the_socket": len(sent) - len(answered),
        "accepted_lost": len(lost),
        "seconds_to_end": round(ended, 1),
    }


async def replicas() -> dict[str, Any]:
    found = {}
    for count in (1, 2):
        with ray_serve(count) as port:
            found[str(count)] = {**await paired_throughput(port), **await overloaded(port, OVERLOADING_REPLICAS)}
            print(f"replicas {count}: {found[str(count)]}", flush=True)
    return found


@contextmanager
def ray_serve(count: int) -> Iterator[int]:
    import socket

    import ray
    from ray import serve

    from service.serve import ReplicaOptions, app

    with socket.socket() as free:
        free.bind((http_load.HOST, 0))
        port = free.getsockname()[1]
    os.environ.update({"TOKENSIGHT_CONTRASTS": "blank", "TOKENSIGHT_TORCH_THREADS": "1", "TOKENSIGHT_QUEUE_SIZE": "64"})
    ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        serve.start(http_options={"host": http_load.HOST, "port": port})
        options = ReplicaOptions(min_replicas=count, max_replicas=count, num_cpus=1)
        serve.run(app(options), name="tokensight", route_prefix="/")
        yield port
        serve.shutdown()
    finally:
        ray.shutdown()


PARTS: dict[str, Part] = {
    "throughput": throughput,
    "engine": engine,
    "overload": overload,
    "disconnect": disconnect,
    "sigterm": sigterm,
    "replicas": replicas,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    chosen = parser.parse_args().only.split(",")
    gc.freeze()  # keeps the load generator from pausing to scan torch's objects
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in chosen:
        before = os.getloadavg()[0]
        found = asyncio.run(PARTS[name]())
        results[name] = {**found, "load_before": round(before, 1), "cores": len(os.sched_getaffinity(0))}
        RESULT.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
        print(f"{name:<12}" + ", ".join(f"{key} {value}" for key, value in results[name].items()), flush=True)


if __name__ == "__main__":
    main()
