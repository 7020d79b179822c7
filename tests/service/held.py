"""A service whose model waits for the test, and clients that wait for the service."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from scorer.results import Result
from scorer.types import EncodedSample
from service.scorer_pool import ScorerPool
from tests.service.helpers import Live, app_of, request, serving


def head(*lines: str) -> bytes:
    return "\r\n".join(
        ["POST /v1/score HTTP/1.1", "Host: x", "Content-Type: application/json", *lines, "", ""]
    ).encode()


def answer_of(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    start, _, body = data.partition(b"\r\n\r\n")
    (length,) = [
        int(line.split(b":")[1]) for line in start.split(b"\r\n") if line.lower().startswith(b"content-length")
    ]
    while len(body) < length:
        body += connection.recv(65536)
    return int(start.split()[1]), json.loads(body)


class Held:
    """The packaged model behind a gate; counts what it scores."""

    def __init__(self, models: ScorerPool) -> None:
        self._models = models
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.scored = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)

    def score(self, contrast: str, rows: Sequence[EncodedSample]) -> list[Result]:
        self.entered.set()
        assert self.gate.wait(60)
        self.scored += len(rows)
        return self._models.score(contrast, rows)


@contextmanager
def held(models: ScorerPool, **options: Any) -> Iterator[tuple[Live, Held]]:
    model = Held(models)
    with serving(app_of(model, **options)) as live:  # type: ignore[arg-type]  # it does what the model does
        try:
            yield live, model
        finally:
            model.gate.set()


class Clients:
    """Requests in threads of their own; their answers."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.answers: list[Any] = []
        self.threads: list[threading.Thread] = []

    def send(self, count: int) -> None:
        for _ in range(count):
            thread = threading.Thread(
                target=lambda: self.answers.append(self.live.send("POST", "/v1/score", request()))
            )
            thread.start()
            self.threads.append(thread)

    def wait(self) -> list[Any]:
        for thread in self.threads:
            thread.join(60)
        return self.answers


def gauge(live: Live, name: str) -> float:
    lines = live.send("GET", "/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"tokensight_{name}"))
