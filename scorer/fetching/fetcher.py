"""Fetch images by URL safely: off unless hosts are allowed, and only the checked address is ever connected to.

The author of a URL in a dataset or request chooses what this machine connects to, so every step is checked, once::

    text ─► parse_url ─► allowed host? ─► resolve ─► all addresses public? ─► connect to *that* address ─► bounded body
                ▲                                                             (Host and SNI of the name)     │
                └──────────────────────── Location, same host, at most three times ◄─────────────────────────┘

There is one parser, and the connection uses its parts, never the text again. Proxies from the environment are ignored,
since they would resolve the name themselves. Pixels are limited on decoding, in
:func:`scorer.encoding.images.load_image`. The time limit does not interrupt the system's name resolution, which has
separate limits (``resolv.conf``).
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urljoin

import httpcore

from scorer.errors import ConfigError, FailureCode, RowError
from scorer.fetching.urls import AUTHORITY, NAME, PORTS, UNSAFE, Address, Url, is_public, parse_url, refused, short

MAX_REDIRECTS: Final = 3

Resolver = Callable[[str, int], Sequence[str]]
"""(name, port) → addresses, as text. Raises OSError if the name does not resolve."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_GONE: Final = frozenset({404, 410})
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


def system_resolver(host: str, port: int) -> list[str]:
    """Resolve a name with the system's resolver. Raises OSError if it does not resolve."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Fetches images from allowed hosts. It can be pickled; every fetch opens a new connection.

    Attributes:
        hosts: ``images.example.org``, ``*.example.org`` (any name below it) or either with ``:port``, which defaults to
            the scheme's port. If empty, nothing is fetched.
        max_bytes: limit for the body of one response, in bytes.
        seconds: limit for one fetch, including redirects.
        resolve, is_allowed, ssl_context: replaced in tests, which have no internet.

    Raises:
        ConfigError: a host is not a full DNS name, or a limit is not positive.
    """

    hosts: tuple[str, ...] = ()
    max_bytes: int = 64 * 2**20
    seconds: float = 20.0
    resolve: Resolver = system_resolver
    is_allowed: Callable[[Address], bool] = is_public
    ssl_context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        for host in self.hosts:
            authority = AUTHORITY.fullmatch(host.removeprefix("*."))
            if authority is None or not NAME.fullmatch(authority[1].lower()):
                raise ConfigError(
                    f"the image host {host!r} is not a full DNS name; give one such as images.example.org or "
                    "*.example.org, without scheme and path, with :port if it is not the scheme's default"
                )
        if self.max_bytes < 1 or self.seconds <= 0:
            raise ConfigError(
                f"images by URL are limited to {self.max_bytes} bytes and {self.seconds} seconds; both must be above 0"
            )

    def fetch(self, url: str, deadline: float | None = None, take: Callable[[int], None] = lambda size: None) -> bytes:
        """Return the response body for ``url``, at most ``max_bytes`` long. A transient error is retried once.

        Args:
            deadline: When to give up, by ``time.monotonic``; None for ``seconds`` from now.
            take: Called with the size of each piece of a body, in bytes, when it has arrived. What it raises ends the
                fetch.

        Raises:
            RowError: ``image_url_refused`` if a rule forbids the URL, ``image_not_fetched`` if the server does not
                deliver, ``image_missing`` if it has no such image, ``image_too_large`` if the body exceeds the limit.
        """
        if deadline is None:
            deadline = time.monotonic() + self.seconds
        try:
            return self._follow(url, deadline, take)
        except _TransientError:
            return self._follow(url, deadline, take)

    def _follow(self, text: str, deadline: float, take: Callable[[int], None]) -> bytes:
        url = self.check(text)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._get(text, url, deadline, take)
            if isinstance(answer, bytes):
                return answer
            url = self._redirected(text, url, answer)
        raise refused(text, f"it redirects more than {MAX_REDIRECTS} times; give the final URL")

    def check(self, text: str) -> Url:
        """Take a URL apart if its form and host are allowed; nothing connects. Raise RowError as ``fetch`` does."""
        if not self.hosts:
            raise refused(text, "images by URL are off; allow its host with --allow-image-host")
        url = parse_url(text)
        if not any(_matches(pattern.lower(), url) for pattern in self.hosts):
            raise refused(
                text,
                f"the host {url.host} at port {url.port} is not among the allowed ones; add it with --allow-image-host",
            )
        return url

    def _redirected(self, text: str, url: Url, location: str) -> Url:
        if UNSAFE.search(location):  # before urljoin, which would silently drop some of them
            raise refused(text, f"it redirects to {location[:200]!r}")
        try:
            target = urljoin(f"{url.scheme}://{url.host}:{url.port}{url.target}", location)
        except ValueError as error:
            raise refused(text, f"it redirects to {location[:200]!r}: {error}") from error
        found = self.check(target)
        if found.host != url.host or (url.scheme, found.scheme) == ("https", "http"):
            raise refused(text, f"it redirects to {target[:200]!r}: another host, or from https to http")
        return found

    def _addresses(self, text: str, url: Url) -> list[str]:
        try:
            found = list(dict.fromkeys(self.resolve(url.host, url.port)))
        except OSError as error:
            raise _TransientError(text, f"the host {url.host} does not resolve ({error})") from error
        forbidden = [address for address in found if not self.is_allowed(ip_address(address))]
        if forbidden or not found:
            raise refused(text, f"the host {url.host} resolves to {', '.join(forbidden) or 'nothing'}: not public")
        return found

    def _get(self, text: str, url: Url, deadline: float, take: Callable[[int], None]) -> bytes | str:
        """Return the body, or the location that the response redirects to."""
        backend = _PinnedBackend(self._addresses(text, url), deadline)
        context = (self.ssl_context or _default_ssl_context()) if url.scheme == "https" else None
        request = httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
        host = url.host if url.port == PORTS[url.scheme] else f"{url.host}:{url.port}"
        headers = {"Host": host, "User-Agent": "tokensight", "Accept": "image/*", "Accept-Encoding": "identity"}
        try:
            with (
                httpcore.ConnectionPool(ssl_context=context, network_backend=backend) as pool,
                pool.stream("GET", request, headers=list(headers.items())) as response,
            ):
                return self._answer(text, response, take)
        except httpcore.TimeoutException as error:
            raise _not_fetched(text, f"it took longer than {self.seconds:g} seconds") from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise _TransientError(text, f"{type(error).__name__}: {error}") from error

    def _answer(self, text: str, response: httpcore.Response, take: Callable[[int], None]) -> bytes | str:
        headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
        if response.status in _REDIRECTS and b"location" in headers:
            return headers[b"location"]
        if response.status in _GONE:
            raise RowError(FailureCode.IMAGE_MISSING, f"{short(text)} does not exist: HTTP status {response.status}")
        if response.status in _TRANSIENT:
            raise _TransientError(text, f"its server answered with HTTP status {response.status}")
        if response.status != 200:
            raise _not_fetched(text, f"its server answered with HTTP status {response.status}")
        if headers.get(b"content-encoding", "identity") != "identity":
            raise _not_fetched(text, f"its server compressed it ({headers[b'content-encoding']!r}) without being asked")
        body = bytearray()
        for chunk in response.iter_stream():
            take(len(chunk))
            body += chunk
            if len(body) > self.max_bytes:
                raise RowError(
                    FailureCode.IMAGE_TOO_LARGE,
                    f"{short(text)} has more than max_image_bytes={self.max_bytes} bytes; raise the limit to allow it",
                )
        return bytes(body)


class _PinnedBackend(httpcore.NetworkBackend):
    """Connects only to the checked addresses, whatever the name resolves to now, and enforces one deadline."""

    def __init__(self, addresses: Sequence[str], deadline: float) -> None:
        self._addresses = addresses
        self._deadline = deadline
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        for address in self._addresses[:-1]:
            try:
                return _TimedStream(self._inner.connect_tcp(address, port, _left(self._deadline)), self._deadline)
            except httpcore.ConnectError:
                continue  # such as an IPv6 address on a machine without IPv6
        return _TimedStream(self._inner.connect_tcp(self._addresses[-1], port, _left(self._deadline)), self._deadline)


class _TimedStream(httpcore.NetworkStream):
    """A stream whose operations all end by the deadline; a server cannot gain time by sending little and often."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: float) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secure = self._inner.start_tls(ssl_context, server_hostname, _left(self._deadline))
        return _TimedStream(secure, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _TransientError(RowError):
    """An error that may be transient and is worth a retry."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(FailureCode.IMAGE_NOT_FETCHED, f"{short(text)} was not fetched: {reason}")

    def __reduce__(self) -> tuple[type[RowError], tuple[FailureCode, str]]:
        return (RowError, (self.code, self.message))


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time limit is reached")
    return left


def _matches(pattern: str, url: Url) -> bool:
    name, _, port = pattern.partition(":")
    if url.port != (int(port) if port else PORTS[url.scheme]):
        return False
    return url.host.endswith(name[1:]) if name.startswith("*.") else url.host == name


@cache
def _default_ssl_context() -> ssl.SSLContext:
    return httpcore.default_ssl_context()


def _not_fetched(text: object, reason: str) -> RowError:
    return RowError(FailureCode.IMAGE_NOT_FETCHED, f"{short(text)} was not fetched: {reason}")
