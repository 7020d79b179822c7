"""Generate load with raw HTTP/1.1 on keep-alive connections, which takes little of the machine being measured."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from scorer import Sample
from scorer.mini import SAMPLE_PATH

HOST = "127.0.0.1"
IDLE_SECONDS = 3.0
"""Connections idle for longer are not reused, as the server closes them after five seconds."""


def samples(count: int) -> list[Sample]:
    """Return valid rows of the packaged dataset, repeated as needed."""
    rows = pq.read_table(sorted(SAMPLE_PATH.glob("*.parquet"))[0]).to_pylist()
    valid = [row for row in rows if row["planted"] is None and row["image"]["bytes"]]
    return [
        Sample.caption(str(i), valid[i % len(valid)]["image"]["bytes"], valid[i % len(valid)]["caption"])
        for i in range(count)
    ]


def bodies(count: int) -> list[bytes]:
    """Return the same rows as request bodies for /v1/score."""
    return [
        json.dumps({"image": {"base64": base64.b64encode(one.images[0]).decode()}, "text": one.turns[-1].text}).encode()
        for one in samples(count)
    ]


@dataclass
class Tally:
    """The responses received: the seconds of each, by status, and the errors of requests that got none."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    unanswered: list[str] = field(default_factory=list)

    def add(self, status: int, seconds: float) -> None:
        self.seconds.setdefault(status, []).append(seconds)

    def count(self, status: int) -> int:
        return len(self.seconds.get(status, ()))

    @property
    def other(self) -> int:
        """Responses that are neither 200 nor a rejection."""
        return sum(len(times) for status, times in self.seconds.items() if status not in (200, 429, 503))

    def percentile(self, percent: float, *statuses: int) -> float:
        """Return a percentile of the response times of ``statuses``, in milliseconds."""
        times = [one for status in statuses for one in self.seconds.get(status, ())]
        return 1e3 * float(np.percentile(times, percent)) if times else float("nan")


class Connection:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.used = 0.0

    async def send(self, method: str, path: str, body: bytes = b"", request_id: str = "load") -> None:
        if time.monotonic() - self.used > IDLE_SECONDS:
            self.close()
        self.used = time.monotonic()
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(HOST, self.port)
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
            f"X-Request-ID: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        await self.writer.drain()

    async def receive(self) -> tuple[int, bytes]:
        assert self.reader is not None
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.used = time.monotonic()
        lines = head.decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        if "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:  # chunked, as Ray Serve's proxy may answer
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
        if headers.get("connection") == "close":
            self.close()
        return int(lines[0].split()[1]), body

    async def ask(self, method: str, path: str, body: bytes = b"", request_id: str = "load") -> tuple[int, bytes]:
        await self.send(method, path, body, request_id)
        return await self.receive()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


async def closed_loop(port: int, clients: int, requests: Sequence[bytes]) -> tuple[Tally, float]:
    """Run ``clients`` that each send a request once the previous one is answered; return the tally and requests/s."""
    tally, waiting = Tally(), list(reversed(requests))

    async def client() -> None:
        connection = Connection(port)
        while waiting:
            started = time.perf_counter()
            status, _ = await connection.ask("POST", "/v1/score", waiting.pop())
            tally.add(status, time.perf_counter() - started)
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return tally, len(requests) / (time.perf_counter() - started)


async def open_loop(port: int, rate: float, requests: Sequence[bytes], tally: Tally) -> None:
    """Send requests at a steady rate, whatever the server answers, on as many connections as that takes."""
    idle, tasks = list[Connection](), []

    async def one(body: bytes) -> None:
        connection = idle.pop() if idle else Connection(port)
        started = time.perf_counter()
        try:
            status, _ = await connection.ask("POST", "/v1/score", body)
        except (OSError, asyncio.IncompleteReadError) as error:
            tally.unanswered.append(f"{type(error).__name__} after {time.perf_counter() - started:.3f} s")
            connection.close()
            return
        tally.add(status, time.perf_counter() - started)
        idle.append(connection)

    began = time.perf_counter()
    for i, body in enumerate(requests):
        await asyncio.sleep(max(0.0, began + i / rate - time.perf_counter()))
        tasks.append(asyncio.ensure_future(one(body)))
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()


async def watch_live(port: int, tally: Tally, every: float = 0.05) -> None:
    """Poll /health/live until cancelled."""
    connection = Connection(port)
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            started = time.perf_counter()
            status, _ = await connection.ask("GET", "/health/live")
            tally.add(status, time.perf_counter() - started)
            await asyncio.sleep(every)
    connection.close()


async def metrics(port: int) -> dict[str, float]:
    """Return the values of /metrics, by name and labels."""
    connection = Connection(port)
    _, body = await connection.ask("GET", "/metrics")
    connection.close()
    found: dict[str, Any] = {}
    for line in body.decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found
