"""The context of every request: its id, log line and metrics."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.logs import current_request, with_fields
from service.metrics import Metrics
from service.problems import standard_headers

logger = logging.getLogger(__name__)

_CLIENT_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_GONE: Final = 499
"""Recorded if the client disconnects before the response; never sent."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestContext:
    """Outermost ASGI middleware: set ``request_id`` and ``arrived`` (monotonic seconds) in the state of the request.

    The id is the ``X-Request-ID`` of the client if it is short and plain, otherwise a new one. The response carries it.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        arrived = time.monotonic()
        request_id = _request_id(scope)
        scope.setdefault("state", {}).update(request_id=request_id, arrived=arrived)
        token = current_request.set(request_id)
        status = _GONE

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in standard_headers(request_id).items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            self._record(scope, status, time.monotonic() - arrived)
            current_request.reset(token)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.metrics.requests.labels(route, method, str(status)).inc()
        self.metrics.latency.labels(route).observe(seconds)
        level = logging.DEBUG if status < 400 and route.startswith(("/health", "/metrics")) else logging.INFO
        logger.log(
            level,
            "request",
            extra=with_fields(method=method, path=scope["path"][:200], status=status, ms=round(1e3 * seconds, 1)),
        )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _CLIENT_ID.fullmatch(value):
            return str(value.decode("ascii"))
    return uuid.uuid4().hex
