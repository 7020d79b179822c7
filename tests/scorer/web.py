"""Real web servers on this machine's loopback, and a name resolution that leads to them."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from scorer.errors import FailureCode, RowError
from scorer.fetching.fetcher import Fetcher
from scorer.fetching.urls import Address

HOST = "images.example.org"
REFUSED = FailureCode.IMAGE_URL_REFUSED

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Site:
    """A running server: its port, and what it was asked, as (path, headers)."""

    port: int
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@contextmanager
def serving(
    answer: Answer, address: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[Site]:
    """Serve ``answer`` to every GET."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.asked.append((self.path, dict(self.headers)))
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that hangs up, which is what many of these tests want

    server = Server((address, port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    site = Site(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def body(data: bytes, status: int = 200, **headers: str) -> Answer:
    """Answer with ``data``; header names are written with underscores."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


class Resolver:
    """Answers with each of ``answers`` in turn, the last one for ever; counts how often it was asked."""

    def __init__(self, *answers: str | Sequence[str]) -> None:
        self.answers: list[Any] = [[answer] if isinstance(answer, str) else list(answer) for answer in answers]
        self.asked: list[tuple[str, int]] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


def first_loopback(address: Address) -> bool:
    """127.0.0.1 stands for the open internet, every other address for what must not be reached."""
    return str(address) == "127.0.0.1"


def fetcher(site: Site, *more: str, resolve: Any = None, **options: Any) -> Fetcher:
    """Allowed: the one host, on the site's port, with 127.0.0.1 in the place of the internet."""
    options.setdefault("is_allowed", first_loopback)
    return Fetcher((f"{HOST}:{site.port}", *more), resolve=resolve or Resolver("127.0.0.1"), **options)


def code(fetch: Fetcher, url: str) -> FailureCode:
    with pytest.raises(RowError) as caught:
        fetch.fetch(url)
    assert caught.value.message
    return caught.value.code
