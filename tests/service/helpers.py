"""Servers, requests and models that answer at once."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from PIL import Image

from service.__main__ import server_config
from service.app import create_app
from service.scorer_pool import ScorerPool
from service.scoring import ScoringService
from service.settings import Settings

KEY = "a-key-of-the-tests"


def picture(seed: int = 0, size: tuple[int, int] = (48, 40)) -> bytes:
    """A PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return png(Image.fromarray(pixels))


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def encoded(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


def request(text: str = "A red kite over two boats.", seed: int = 0, **further: Any) -> dict[str, Any]:
    """The JSON of /v1/score."""
    body = {"image": encoded(picture(seed)), "text": text, **further}
    return {name: value for name, value in body.items() if value is not None}


def settings(**options: Any) -> Settings:
    """Settings that the environment has no part in."""
    return Settings(**{"torch_threads": 1, "batch_wait_ms": 1.0, **options})


def app_of(models: ScorerPool, fetcher: Any = None, **options: Any) -> FastAPI:
    """An application with a model that is loaded already."""
    chosen = settings(**options)
    return create_app(chosen, ScoringService(chosen, load=lambda _: models, fetcher=fetcher))


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body, parse_constant=_refuse)


def _refuse(name: str) -> None:
    raise AssertionError(f"an answer holds {name}")


@dataclass(frozen=True, slots=True)
class Live:
    """A server on a port of its own."""

    port: int

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        host: str | None = None,
    ) -> Answer:
        """One request, its path and Host header sent as they are."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection._validate_path = lambda url: None  # type: ignore[attr-defined]  # paths that no client sends
            connection.putrequest(method, path, skip_host=True)
            connection.putheader("Host", host if host is not None else f"127.0.0.1:{self.port}")
            data = json.dumps(body).encode() if isinstance(body, dict) else body
            if data is not None:
                connection.putheader("Content-Length", str(len(data)))
            if isinstance(body, dict):
                connection.putheader("Content-Type", "application/json")
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            connection.endheaders(data)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def wait_until_ready(self, seconds: float = 120) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if self.send("GET", "/health/ready").status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready within {seconds} s")


@contextmanager
def serving(app: Any) -> Iterator[Live]:
    """The application, or one that wraps it as ``app``, behind uvicorn as ``tokensight serve`` runs it, in a thread."""
    service: ScoringService = getattr(app, "app", app).state.service
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(server_config(app, service.settings, service.metrics))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
        thread.start()
        live = Live(listener.getsockname()[1])
        try:
            live.wait_until_ready()
            yield live
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it holds; fail where it never does."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)
