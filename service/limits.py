"""Limits on what is accepted: samples in flight, bytes in memory, and the time a body may take to arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics
from service.problems import ProblemError, problem_response

MAX_RETRY_SECONDS: Final = 60


class Admission:
    """Count samples that are accepted and not yet answered. Slots are taken before reading a body: rejects are cheap.

    Use it from the event loop only.

    Args:
        capacity: Maximum number of samples in flight.
        retry_seconds: Returns the estimated seconds until there is room.
    """

    def __init__(self, capacity: int, retry_seconds: Callable[[], float], metrics: Metrics) -> None:
        self.capacity = capacity
        self.in_flight = 0
        self._retry_seconds = retry_seconds
        self._metrics = metrics

    @contextmanager
    def slots(self, count: int) -> Iterator[None]:
        """Hold ``count`` slots. Raises ProblemError 429 if they are not free."""
        if self.in_flight + count > self.capacity:
            self._metrics.rejects.labels("queue_full").inc()
            raise busy(
                f"{self.in_flight} samples are in progress, {count} more would exceed queue_size={self.capacity}",
                self._retry_seconds(),
            )
        self.in_flight += count
        try:
            yield
        finally:
            self.in_flight -= count


def busy(reason: str, seconds: float) -> ProblemError:
    """Return a problem 429 with the time after which to retry."""
    wait = min(MAX_RETRY_SECONDS, max(1, round(seconds)))
    return ProblemError(429, "queue_full", f"{reason}; try again in {wait} s", {"Retry-After": str(wait)})


class PendingBytes:
    """Count the bytes of bodies and fetched images that are in memory. Any thread may use it.

    Args:
        limit: Maximum total size, in bytes.
    """

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self.limit = limit
        self.size = 0
        self._metrics = metrics
        self._lock = Lock()

    def take(self, size: int) -> None:
        """Count ``size`` bytes more. Raises ProblemError 429 if they would exceed the limit."""
        with self._lock:
            if self.size + size <= self.limit:
                self.size += size
                return
        self._metrics.rejects.labels("memory").inc()
        held = f"bodies and fetched images in progress hold {self.size} bytes"
        raise busy(f"{held}, and {size} more would exceed max_pending_bytes={self.limit}", 1)

    def give_back(self, size: int) -> None:
        with self._lock:
            self.size -= size


class BodyLimit:
    """ASGI middleware that limits bodies as they stream in, whatever their headers say.

    Args:
        max_bytes: Maximum size of one body, in bytes.
        pending: Limits the total size of what is in memory.
        seconds: Time within which a body must arrive.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, pending: PendingBytes, seconds: float, metrics: Metrics) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.pending = pending
        self.seconds = seconds
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = _declared_length(scope)
        if declared is not None and declared > self.max_bytes:
            await problem_response(self._too_large(), scope)(scope, receive, send)
            return
        taken = 0
        complete = False
        deadline = asyncio.get_running_loop().time() + self.seconds

        async def bounded_receive() -> Message:
            nonlocal taken, complete
            if complete:
                return await receive()  # only a disconnect can follow
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                self.metrics.rejects.labels("body_slow").inc()
                raise ProblemError(
                    408, "body_slow", f"the body did not arrive within {self.seconds:g} s; send it faster"
                ) from None
            size = len(message.get("body", b""))
            if taken + size > self.max_bytes:
                raise self._too_large()
            self.pending.take(size)
            taken += size
            complete = not message.get("more_body", False)
            return message

        try:
            await self.app(scope, bounded_receive, send)
        finally:
            self.pending.give_back(taken)

    def _too_large(self) -> ProblemError:
        self.metrics.rejects.labels("body_too_large").inc()
        return ProblemError(
            413,
            "body_too_large",
            f"the body has more than max_body_bytes={self.max_bytes}; send a smaller image or fewer items",
        )


def _declared_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:19])
    return None
