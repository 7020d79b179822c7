"""A running server whose answers can be held back or replaced, as a proxy or a busy server would."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.service.helpers import serving


@dataclass
class Answer:
    """What is said instead of what the app would say."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/problem+json"


class Faults:
    """Counts the requests for scores and for weights, and answers in the app's place while there are answers left."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.answers: list[Answer] = []
        self.models: list[Answer] = []
        self.weights: list[Answer] = []
        self.weighed = 0
        self.scored: list[str] = []
        self.disconnected = 0
        self.gate = threading.Event()
        self.gate.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") == "/v1/models" and self.models:
            await self._answer(self.models.pop(0), receive, send)
            return
        if scope.get("path") == "/v1/weights":
            self.weighed += 1
            if self.weights:
                await self._answer(self.weights.pop(0), receive, send)
                return
        if scope["type"] != "http" or scope["path"] != "/v1/score":
            await self.app(scope, receive, send)
            return
        self.scored.append(scope["method"])
        if self.answers:
            await self._answer(self.answers.pop(0), receive, send)
            return
        if not self.gate.is_set():
            await self._until_open(receive)
            return
        await self.app(scope, receive, send)

    async def _until_open(self, receive: Receive) -> None:
        """Reads the request and waits for its client to go."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.disconnected += 1

    async def _answer(self, answer: Answer, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        headers = {"content-type": answer.media_type, **answer.headers}
        start: Message = {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        }
        await send(start)
        await send({"type": "http.response.body", "body": body.encode()})


@dataclass(frozen=True)
class Server:
    """A running application, and what stands before it."""

    url: str
    faults: Faults

    def reset(self) -> None:
        """As it started: every request goes to the app, none was counted."""
        self.faults.answers.clear()
        self.faults.models.clear()
        self.faults.weights.clear()
        self.faults.weighed = 0
        self.faults.scored.clear()
        self.faults.disconnected = 0
        self.faults.gate.set()


@contextmanager
def running(app: ASGIApp) -> Iterator[Server]:
    """The application behind uvicorn, on a free port."""
    faults = Faults(app)
    with serving(faults) as live:
        yield Server(f"http://127.0.0.1:{live.port}", faults)
