from __future__ import annotations

import pickle
import ssl
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
import trustme

from scorer.errors import ConfigError, FailureCode, RowError
from scorer.fetching.fetcher import Fetcher
from tests.scorer.web import HOST, REFUSED, Resolver, body, code, fetcher, first_loopback, serving


def test_an_image_of_an_allowed_host_is_fetched() -> None:
    with serving(body(b"picture")) as site:
        fetch = fetcher(site)
        assert fetch.fetch(f"http://{HOST}:{site.port}/a%20b/ü.jpg?x=1&y=[2]#part") == b"picture"
        ((path, headers),) = site.asked
    assert path == "/a%20b/%C3%BC.jpg?x=1&y=%5B2%5D"
    assert headers["Host"] == f"{HOST}:{site.port}"
    assert headers["Accept-Encoding"] == "identity"


def test_names_below_a_wildcard_are_allowed_and_the_name_itself_is_not() -> None:
    with serving(body(b"picture")) as site:
        fetch = Fetcher((f"*.example.org:{site.port}",), resolve=Resolver("127.0.0.1"), is_allowed=first_loopback)
        assert fetch.fetch(f"http://a.b.EXAMPLE.org:{site.port}/") == b"picture"
        for host in ("example.org", "xexample.org", "example.org.evil.net"):
            assert code(fetch, f"http://{host}:{site.port}/") is REFUSED
        assert len(site.asked) == 1


# --- addresses --------------------------------------------------------------------------------------------------


def test_a_name_that_answers_differently_the_second_time_gains_nothing() -> None:
    with serving(body(b"picture")) as outside, serving(body(b"secret"), "127.0.0.2", outside.port) as inside:
        resolve = Resolver("127.0.0.1", "127.0.0.2")
        assert fetcher(outside, resolve=resolve).fetch(f"http://{HOST}:{outside.port}/") == b"picture"
        assert len(resolve.asked) == 1, "the address that was checked is the one connected to"
        assert inside.asked == []


def test_a_name_that_answers_differently_after_a_redirect_is_refused() -> None:
    redirect = body(b"", 302, Location="/again")
    with serving(redirect) as outside, serving(body(b"secret"), "127.0.0.2", outside.port) as inside:
        resolve = Resolver("127.0.0.1", "127.0.0.2")
        assert code(fetcher(outside, resolve=resolve), f"http://{HOST}:{outside.port}/") is REFUSED
        assert len(resolve.asked) == 2
        assert inside.asked == []


def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    with serving(body(b"picture")) as site:
        fetch = fetcher(site, resolve=Resolver(["127.0.0.3", "127.0.0.1"]), is_allowed=lambda _: True)
        assert fetch.fetch(f"http://{HOST}:{site.port}/") == b"picture"


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(body(b"picture")) as site, serving(body(b"from the proxy")) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert fetcher(site).fetch(f"http://{HOST}:{site.port}/") == b"picture"
        assert proxy.asked == []


# --- redirects --------------------------------------------------------------------------------------------------


def test_a_redirect_on_the_same_host_is_followed() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        (body(b"picture") if handler.path == "/new?x" else body(b"", 301, Location="new?x"))(handler)

    with serving(answer) as site:
        resolve = Resolver("127.0.0.1")
        assert fetcher(site, resolve=resolve).fetch(f"http://{HOST}:{site.port}/old") == b"picture"
        assert len(resolve.asked) == 2, "each step is resolved and checked"


@pytest.mark.parametrize(
    "location",
    [
        *(
            "http://127.0.0.1:{p}/",
            "http://localhost:{p}/",
            "//127.0.0.1:{p}/",
            "http://[::1]:{p}/",
            "http://2130706433:{p}/",
        ),
        *("http://cdn.example.org:{p}/", "http://images.example.org@127.0.0.1:{p}/", "file:///etc/hostname"),
        *("/\\127.0.0.1:{p}/", "http://images.example.org:{p}\\@127.0.0.1/", "http:\t//127.0.0.1:{p}/", "http://[x"),
        *("http://images.example.org:1/", "http://images.example.org.:{p}/", "gopher://images.example.org:{p}/"),
    ],
)
def test_a_redirect_elsewhere_is_refused(location: str) -> None:
    """To another host it is refused even if that host is allowed, and answers."""
    with serving(body(b"secret"), "127.0.0.2") as inside:

        def answer(handler: BaseHTTPRequestHandler) -> None:
            target = location.replace("{p}", str(inside.port))
            body(b"", 302, Location=target)(handler)

        with serving(answer) as site:
            fetch = fetcher(site, f"cdn.example.org:{inside.port}", f"{HOST}:{inside.port}")
            assert code(fetch, f"http://{HOST}:{site.port}/") is REFUSED
            assert len(site.asked) == 1
            assert inside.asked == []


def test_characters_that_would_be_dropped_in_silence_are_no_part_of_a_redirect() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        (body(b"picture") if handler.path == "/new" else body(b"", 302, Location="/n\te\tw"))(handler)

    with serving(answer) as site:
        assert code(fetcher(site), f"http://{HOST}:{site.port}/") is REFUSED


def test_redirects_end() -> None:
    with serving(body(b"", 307, Location="/")) as site:
        assert code(fetcher(site), f"http://{HOST}:{site.port}/") is REFUSED
        assert len(site.asked) == 4


# --- limits and answers -----------------------------------------------------------------------------------------


def chunked(handler: BaseHTTPRequestHandler) -> None:
    """An endless body that does not say how long it is."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for _ in range(10_000):
        handler.wfile.write(b"400\r\n" + b"0" * 1024 + b"\r\n")


@pytest.mark.parametrize("answer", [body(b"0" * 5000), chunked])
def test_a_body_over_the_limit_is_not_read(answer: Any) -> None:
    with serving(answer) as site:
        assert code(fetcher(site, max_bytes=4999), f"http://{HOST}:{site.port}/") is FailureCode.IMAGE_TOO_LARGE
    with serving(body(b"0" * 5000)) as site:
        assert len(fetcher(site, max_bytes=5000).fetch(f"http://{HOST}:{site.port}/")) == 5000


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_server_that_sends_little_and_often_runs_out_of_time(part: str) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 1000\r\n\r\n" if part == "body" else b""))
        for _ in range(100):
            handler.wfile.write(b"X: y\r\n")
            time.sleep(0.05)

    with serving(drip) as site:
        started = time.monotonic()
        assert code(fetcher(site, seconds=0.4), f"http://{HOST}:{site.port}/") is FailureCode.IMAGE_NOT_FETCHED
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("status", "headers", "expected", "requests"),
    [
        (404, {}, FailureCode.IMAGE_MISSING, 1),
        (410, {}, FailureCode.IMAGE_MISSING, 1),
        (403, {}, FailureCode.IMAGE_NOT_FETCHED, 1),
        (204, {}, FailureCode.IMAGE_NOT_FETCHED, 1),
        (302, {}, FailureCode.IMAGE_NOT_FETCHED, 1),
        (503, {}, FailureCode.IMAGE_NOT_FETCHED, 2),
        (429, {}, FailureCode.IMAGE_NOT_FETCHED, 2),
        (200, {"Content_Encoding": "gzip"}, FailureCode.IMAGE_NOT_FETCHED, 1),
    ],
)
def test_answers_without_a_picture(status: int, headers: dict[str, str], expected: FailureCode, requests: int) -> None:
    with serving(body(b"", status, **headers)) as site:
        assert code(fetcher(site), f"http://{HOST}:{site.port}/") is expected
        assert len(site.asked) == requests


def test_what_passes_is_tried_again() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        body(b"picture", 503 if len(site.asked) == 1 else 200)(handler)

    with serving(answer) as site:
        assert fetcher(site).fetch(f"http://{HOST}:{site.port}/") == b"picture"


def test_no_server_and_no_name() -> None:
    def nowhere(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    with serving(body(b"")) as site:
        pass
    assert code(fetcher(site), f"http://{HOST}:{site.port}/") is FailureCode.IMAGE_NOT_FETCHED
    assert code(fetcher(site, resolve=nowhere), f"http://{HOST}:{site.port}/") is FailureCode.IMAGE_NOT_FETCHED
    assert code(fetcher(site, resolve=Resolver([])), f"http://{HOST}:{site.port}/") is REFUSED


# --- TLS --------------------------------------------------------------------------------------------------------


def test_the_certificate_must_be_the_names_although_the_connection_is_to_an_address() -> None:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert(HOST).configure_cert(server)
    authority.configure_trust(client)
    asked: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: asked.append(name)
    with serving(body(b"picture"), tls=server) as site:
        other = f"other.example.org:{site.port}"
        fetch = fetcher(site, other, ssl_context=client)
        assert fetch.fetch(f"https://{HOST}:{site.port}/") == b"picture"
        assert asked == [HOST]
        assert code(fetch, f"https://{other}/") is FailureCode.IMAGE_NOT_FETCHED
        assert code(fetcher(site), f"https://{HOST}:{site.port}/") is FailureCode.IMAGE_NOT_FETCHED
        assert len(site.asked) == 1


def test_no_way_from_https_to_http() -> None:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert(HOST).configure_cert(server)
    authority.configure_trust(client)
    with serving(body(b"secret")) as plain:
        redirect = body(b"", 302, Location=f"http://{HOST}:{plain.port}/")
        with serving(redirect, tls=server) as site:
            fetch = fetcher(site, f"{HOST}:{plain.port}", ssl_context=client)
            assert code(fetch, f"https://{HOST}:{site.port}/") is REFUSED
        assert plain.asked == []


# --- options ----------------------------------------------------------------------------------------------------


def test_without_allowed_hosts_nothing_is_fetched() -> None:
    with pytest.raises(RowError, match="images by URL are off") as caught:
        Fetcher().fetch("http://images.example.org/a.jpg")
    assert caught.value.code is REFUSED


@pytest.mark.parametrize(
    "host", ["*", "*.org", "localhost", "10.0.0.1", "http://a.org", "a.org/x", "a.*.org", "", "a.org:x"]
)
def test_a_host_that_allows_too_much_or_nothing_is_an_error(host: str) -> None:
    with pytest.raises(ConfigError, match="not a full DNS name"):
        Fetcher((host,))


@pytest.mark.parametrize("limits", [{"max_bytes": 0}, {"seconds": 0}])
def test_limits_are_above_zero(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        Fetcher(("a.org",), **limits)


def test_a_fetcher_and_its_errors_travel_between_processes() -> None:
    fetch = Fetcher(("a.org",), max_bytes=7)
    assert pickle.loads(pickle.dumps(fetch)) == fetch
    with serving(body(b"", 503)) as site, pytest.raises(RowError) as caught:
        fetcher(site).fetch(f"http://{HOST}:{site.port}/")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.code, copy.message) == (caught.value.code, caught.value.message)
