"""URLs that programs read differently, and names that lead inside: all refused before anything is connected to."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorer.errors import RowError
from scorer.fetching.urls import Url, is_public, parse_url
from tests.scorer.web import HOST, REFUSED, Resolver, Site, body, code, fetcher, serving


@pytest.fixture(scope="module")
def secret() -> Iterator[Site]:
    """A server that nothing may reach."""
    with serving(body(b"secret")) as site:
        yield site
    assert site.asked == []


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
