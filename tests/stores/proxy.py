"""A proxy between a client and a store that spoils a share of the requests, reproducibly.

slow_down    503 SlowDown, not forwarded
conflict     409 ConditionalRequestConflict, not forwarded (conditional PUT)
refused      412 PreconditionFailed though nothing is there, not forwarded (conditional PUT)
reset        the connection is reset before the request is forwarded
slow         forwarded late
half_sent    half of the body is forwarded, then both connections break (PUT)
truncated    the answer breaks off in the middle of its body (GET)
lost         carried out by the store; the connection is reset instead of an answer
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

ANY: Final = ("slow_down", "reset", "slow", "lost")
SLOW_SECONDS: Final = 0.2
_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "expect"})


class FaultingProxy(ThreadingHTTPServer):
    """Forwards to ``upstream``.

    Args:
        rate: the share of requests that are spoiled.
        seed: with the order of requests, decides which, and how.

    Attributes:
        faults: how often each kind was done.
        requests: how many requests there were.
        always: a status and an S3 error code that every request is answered with instead.
    """

    daemon_threads = True

    def __init__(self, upstream: str, rate: float, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream)
        self.rate = rate
        self.faults: Counter[str] = Counter()
        self.requests = 0
        self.always: tuple[int, str] | None = None
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def choose(self, kinds: tuple[str, ...]) -> str | None:
        """What is done to the next request; None: nothing."""
        with self._lock:
            self.requests += 1
            if self._random.random() >= self.rate:
                return None
            kind = self._random.choice(kinds)
            self.faults[kind] += 1
            return kind

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of the test's business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultingProxy

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.always is not None:
            self._refuse(*self.server.always)
            return
        kinds = ANY
        if self.command == "GET":
            kinds += ("truncated",)
        if self.command == "PUT":
            kinds += ("half_sent",)
        if self.headers.get("If-None-Match"):
            kinds += ("conflict", "refused")
        kind = self.server.choose(kinds)
        if kind == "slow_down":
            self._refuse(503, "SlowDown")
        elif kind == "conflict":
            self._refuse(409, "ConditionalRequestConflict")
        elif kind == "refused":
            self._refuse(412, "PreconditionFailed")
        elif kind == "reset":
            self._reset()
        elif kind == "half_sent":
            self._forward_half(body)
            self._reset()
        else:
            if kind == "slow":
                time.sleep(SLOW_SECONDS)
            self._answer(*self._forward(body), kind=kind)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve  # noqa: N815

    def _forward(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        upstream = self._connect()
        try:
            upstream.request(self.command, self.path, body or None, self._headers())
            response = upstream.getresponse()
            return response, response.read()
        finally:
            upstream.close()

    def _forward_half(self, body: bytes) -> None:
        upstream = self._connect()
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self._headers().items():
            upstream.putheader(name, value)
        upstream.endheaders(body[: len(body) // 2])
        upstream.close()

    def _answer(self, response: http.client.HTTPResponse, body: bytes, kind: str | None) -> None:
        if kind == "lost":
            self._reset()
            return
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in _HOP | {"content-length"}:
                self.send_header(name, value)
        length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if kind == "truncated" else body)
        if kind == "truncated":
            self._reset()

    def _refuse(self, status: int, code: str) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code} by the proxy</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()  # with nothing lingering: RST, not FIN
        self.close_connection = True

    def _connect(self) -> http.client.HTTPConnection:
        upstream = self.server.upstream
        return http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=60)

    def _headers(self) -> dict[str, str]:
        """The client's own, its Host too: it is signed."""
        return {name: value for name, value in self.headers.items() if name.lower() not in _HOP}

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests read their own counts."""


@contextmanager
def faulting(upstream: str, *, rate: float = 0.1, seed: int = 0) -> Iterator[FaultingProxy]:
    """A proxy for as long as the block lasts."""
    with FaultingProxy(upstream, rate, seed) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
