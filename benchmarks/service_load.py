"""The HTTP service under load, on this machine's loopback, bounded in requests.

    python -m benchmarks.service_load [--only throughput,engine,overload,memory,disconnect,sigterm,replicas]

    throughput  32 clients against one request at a time, on the same server
    engine      the engine alone (decode, encode, score; no HTTP) against 32 clients
    overload    requests at ten times the rate that the server can do: rejections, /health/live, what was accepted
    memory      10,000 requests: resident memory as they pass
    disconnect  90 of 100 clients leave while they wait: what is computed all the same
    sigterm     SIGTERM while 32 clients send: what was accepted and not answered
    replicas    throughput and overload through Ray Serve with one and with two replicas

Every part starts its own server: the packaged model, one thread of torch, contrast ``blank``. The load generator runs
on the same cores. Pairs take turns; figures are medians and ranges of five.
"""

from __future__ import annotations

import argparse
import asyncio
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
ALONE, TOGETHER, OVERLOADING, LONG = 16, 160, 3_000, 10_000
OPTIONS = ("--contrasts", "blank", "--torch-threads", "1")

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
        seen = await metrics(process.live.port)
    rows = seen["tokensight_batch_rows_sum"] / seen["tokensight_batch_rows_count"]
    return {**found, "rows_per_batch": round(rows, 1)}


async def engine() -> dict[str, Any]:
    torch.set_num_threads(1)
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


async def overloaded(port: int) -> dict[str, Any]:
    await warm(port)
    _, rate = await closed_loop(port, CLIENTS, bodies(64))
    live = Tally()
    watching = asyncio.ensure_future(watch_live(port, live))
    started = time.perf_counter()
    tally = await open_loop(port, OVERLOAD * rate, bodies(OVERLOADING))
    seconds = time.perf_counter() - started
    watching.cancel()
    await asyncio.wait([watching])
    rejected = tally.count(429) + tally.count(503)
    return {
        "capacity_per_s": round(rate, 1),
        "sent": OVERLOADING,
        "sent_per_s": round(OVERLOAD * rate, 1),
        "seconds": round(seconds, 1),
        "scored": tally.count(200),
        "rejected": rejected,
        "other": tally.other,
        "unanswered": tally.unanswered,
        "reject_p50_ms": round(tally.percentile(50, 429, 503), 1),
        "reject_p99_ms": round(tally.percentile(99, 429, 503), 1),
        "live_p99_ms": round(live.percentile(99, 200), 1),
        "live_asked": live.count(200),
    }


async def overload() -> dict[str, Any]:
    with server("--queue-size", "64") as process:
        return await overloaded(process.live.port)


async def memory() -> dict[str, Any]:
    every = LONG // 10
    resident = []
    with server() as process:
        await warm(process.live.port)
        started = time.perf_counter()
        for _ in range(10):
            tally, _ = await closed_loop(process.live.port, CLIENTS, bodies(every))
            assert tally.count(200) == every
            resident.append(round(process.resident_bytes / 2**20))
            print(f"memory: {resident[-1]} MiB", flush=True)
    return {
        "requests": LONG,
        "seconds": round(time.perf_counter() - started),
        "resident_mib": resident,
        "growth_mib_after_first_tenth": resident[-1] - resident[0],
    }


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
            found[str(count)] = {**await paired_throughput(port), **await overloaded(port)}
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
    os.environ.update(
        {"TOKENSIGHT_CONTRASTS": "blank", "TOKENSIGHT_TORCH_THREADS": "1", "TOKENSIGHT_LOG_LEVEL": "WARNING"}
    )
    ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        serve.start(http_options={"host": http_load.HOST, "port": port})
        options = ReplicaOptions(
            min_replicas=count, max_replicas=count, num_cpus=1, max_ongoing_requests=48, max_queued_requests=32
        )
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
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    chosen = parser.parse_args().only.split(",")
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in chosen:
        before = os.getloadavg()[0]
        found = asyncio.run(PARTS[name]())
        results[name] = {**found, "load_before": round(before, 1), "cores": len(os.sched_getaffinity(0))}
        RESULT.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
        print(f"{name:<12}" + ", ".join(f"{key} {value}" for key, value in results[name].items()), flush=True)


if __name__ == "__main__":
    main()
