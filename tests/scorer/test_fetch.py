from __future__ import annotations

import pickle
import ssl
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from scorer.errors import ConfigError, FailureCode, RowError
from scorer.fetch import Fetcher
from scorer.urls import Url, is_public, parse_url
from tests.scorer.web import Resolver, Site, body, first_loopback, serving

HOST = "images.example.org"
REFUSED = FailureCode.IMAGE_URL_REFUSED


def fetcher(site: Site, *more: str, resolve: Any = None, **options: Any) -> Fetcher:
    """Allowed: the one host, on the site's port, with 127.0.0.1 in the place of the internet."""
    options.setdefault("is_allowed", first_loopback)
    return Fetcher((f"{HOST}:{site.port}", *more), resolve=resolve or Resolver("127.0.0.1"), **options)


@pytest.fixture(scope="module")
def secret() -> Iterator[Site]:
    """A server that nothing may reach."""
    with serving(body(b"secret")) as site:
        yield site
    assert site.asked == []


def code(fetch: Fetcher, url: str) -> FailureCode:
    with pytest.raises(RowError) as caught:
        fetch.fetch(url)
    assert caught.value.message
    return caught.value.code


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


# --- the form of a URL ------------------------------------------------------------------------------------------

BYPASSES = [
    # addresses in every notation that some resolver takes for 127.0.0.1 or 169.254.169.254
    *("http://127.0.0.1:{p}/", "http://127.1:{p}/", "http://127.0.1:{p}/", "http://2130706433:{p}/"),
    *("http://0177.0.0.1:{p}/", "http://017700000001:{p}/", "http://0x7f.0.0.1:{p}/", "http://0x7f000001:{p}/"),
    *("http://0:{p}/", "http://0.0.0.0:{p}/", "http://127.0.0.0x1:{p}/", "http://0x7f.1:{p}/"),
    *("http://169.254.169.254:{p}/latest/meta-data/", "http://2852039166:{p}/", "http://0251.0376.0251.0376:{p}/"),
    *("http://[::1]:{p}/", "http://[::]:{p}/", "http://[::ffff:127.0.0.1]:{p}/", "http://[0:0:0:0:0:ffff:7f00:1]:{p}/"),
    *("http://[64:ff9b::7f00:1]:{p}/", "http://[fe80::1%25lo]:{p}/", "http://[::127.0.0.1]:{p}/"),
    *("http://127.0.0.1.:{p}/", "http://①②⑦.⓪.⓪.①:{p}/", "http://127。0。0。1:{p}/"),
    # names of this machine, and names that only some parsers see
    *("http://localhost:{p}/", "http://localhost.:{p}/", "http://LOCALHOST:{p}/"),
    *("http://images.example.org.:{p}/", "http://images.example.org..:{p}/", "http://.images.example.org:{p}/"),
    *("http://images.example.org%2eevil.net:{p}/", "http://images.example.org%00.evil.net:{p}/"),
    *(
        "http://evil.net%2fimages.example.org:{p}/",
        "http://images。example。org:{p}/",
        "http://ïmages.example.org:{p}/",
    ),
    # two hosts in one URL
    *("http://images.example.org@evil.net:{p}/", "http://evil.net@images.example.org:{p}/"),
    *("http://images.example.org:{p}@127.0.0.1:{p}/", "http://user:pass@images.example.org:{p}/"),
    *("http://@images.example.org:{p}/", "http://images.example.org&@127.0.0.1:{p}#@evil.net/"),
    *("http://evil.net\\@images.example.org:{p}/", "http://images.example.org:{p}\\.evil.net/"),
    *("http:\\\\images.example.org:{p}\\", "http://127.0.0.1:{p}\\@images.example.org/"),
    *(
        "http://images.example.org:{p}:80/",
        "http://images.example.org;127.0.0.1:{p}/",
        "http://a,images.example.org:{p}/",
    ),
    # characters that parsers drop in silence
    *("http://images.exam\tple.org:{p}/", "http://images.example.org\r\n:{p}/", " http://images.example.org:{p}/"),
    *("ht\ntp://images.example.org:{p}/", "http://images.example.org:{p}/\r\nHost: evil.net", "\x00http://x.org:{p}/"),
    # other hosts, other ports
    *("http://evil.net:{p}/", "http://images.example.org.evil.net:{p}/", "http://ximages.example.org:{p}/"),
    *("http://images.example.org/", "http://images.example.org:22/", "https://images.example.org/"),
    *("http://images.example.org:/", "http://images.example.org:0/", "http://images.example.org:65536/"),
    *("http://images.example.org:-1/", "http://images.example.org:８０/", "http://images.example.org:8_0/"),
    # other schemes, and no host at all
    *("file:///etc/hostname", "ftp://images.example.org:{p}/", "gopher://images.example.org:{p}/_GET", "data:,x"),
    *("//images.example.org:{p}/", "http:images.example.org:{p}/", "http:///images.example.org:{p}/", "http://", ""),
    *("http://?@images.example.org:{p}/", "jar:http://images.example.org:{p}/", "http://[images.example.org:{p}/"),
    "http://images.example.org:{p}/" + "a" * 9000,
]


@pytest.mark.parametrize("url", BYPASSES)
def test_a_url_that_programs_read_differently_is_refused(url: str, secret: Site) -> None:
    """Every name leads to a server that answers, and its address is allowed: only form and host can refuse."""
    assert code(fetcher(secret), url.replace("{p}", str(secret.port))) is REFUSED
    assert secret.asked == []


def test_the_table_is_as_long_as_it_says() -> None:
    assert len(set(BYPASSES)) == len(BYPASSES) >= 70


@given(st.text(max_size=60), st.sampled_from(["", "http://", "https://", "http://images.example.org"]))
def test_whatever_is_parsed_is_a_plain_name(text: str, prefix: str) -> None:
    try:
        url = parse_url(prefix + text)
    except RowError as error:
        assert error.code is REFUSED
        return
    assert url.scheme in ("http", "https")
    assert url.host == url.host.lower()
    assert url.host.isascii()
    assert not set(url.host) & set("@:/\\%[] ")
    with pytest.raises(ValueError, match="does not appear"):
        ip_address(url.host)
    assert url.target.startswith("/")
    assert url.target.isascii()
    assert " " not in url.target


def test_the_parts_of_a_url() -> None:
    assert parse_url("HTTPS://Images.Example.org?q") == Url("https", "images.example.org", 443, "/?q")
    assert parse_url("http://a.xn--p1ai:8080/x/../y") == Url("http", "a.xn--p1ai", 8080, "/x/../y")


# --- addresses --------------------------------------------------------------------------------------------------

NOT_PUBLIC = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.0.1"),
    *("169.254.169.254", "169.254.0.1", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.168.0.1"),
    *("192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1"),
    *("255.255.255.255", "168.63.129.16", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8"),
    *(
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::a00:1",
        "100::1",
        "fe80::1",
        "fe80::1%lo",
    ),
    *("fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001::1", "2001:0:7f00:1::", "2001:db8::1", "2002:7f00:1::"),
    *("2002:a00:1::", "3fff::1", "5f00::1"),
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_name_that_leads_inside_is_refused(address: str, secret: Site) -> None:
    assert not is_public(ip_address(address))
    for answer in (address, ["8.8.8.8", address]):
        fetch = fetcher(secret, resolve=Resolver(answer), is_allowed=is_public)
        assert code(fetch, f"http://{HOST}:{secret.port}/") is REFUSED


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ip_address(address))


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
    with pytest.raises(ConfigError, match="no full DNS name"):
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
