"""Pictures by URL, end to end: more than forty ways around an allow-list, and the one way in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from service.scorer_pool import ScorerPool
from tests.scorer.web import HOST, Resolver, Site, body, first_loopback, serving
from tests.scorer.web import fetcher as guarded_fetcher
from tests.service import helpers
from tests.service.helpers import Answer, Live, app_of, picture

SECRET = b"the secret of an inner service"

ADDRESSES = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001",
    "127.0.0.1.", "0", "0.0.0.0", "localhost", "localhost.", "localhost.localdomain", "LOCALHOST", "127.0.0.2",
    "169.254.169.254", "0xa9fea9fe", "2852039166", "metadata.google.internal", "10.0.0.1", "192.168.0.1", "172.16.0.1",
    "100.64.0.1", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]",
    "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1%25lo]", "[fd00::1]", "①②⑦.⓪.⓪.①",
    "127。0。0。1", "ｌｏｃａｌｈｏｓｔ", "127.0.0.1.nip.io", "evil.example.org",
]  # fmt: skip
FORMS = [
    "http://images.example.org@127.0.0.2:{p}/", "http://images.example.org:{p}@127.0.0.2:{p}/",
    "http://127.0.0.2:{p}#@images.example.org/", "http://127.0.0.2:{p}?@images.example.org:{p}/",
    "http://127.0.0.2:{p}\\@images.example.org:{p}/", "http://images.example.org:{p}\\@127.0.0.2:{p}/",
    "http://images.example.org.:{p}/", "http://images.example.org.127.0.0.2.nip.io:{p}/",
    "http://ximages.example.org:{p}/", "http://images.example.org%2f@127.0.0.2:{p}/", "http:/\\127.0.0.2:{p}/",
    "http:///127.0.0.2:{p}/", "//127.0.0.2:{p}/", "http://images.example.org\t@127.0.0.2:{p}/",
    "http://images.example.org\r\nHost: 127.0.0.2:{p}/", "http://images.example.org%00.127.0.0.2:{p}/",
    "http://images.example.org:{p}:80/", "http://images.example.org:0{p}0/", "http://images.example.org:22/",
    "file:///etc/passwd", "file://images.example.org/etc/passwd", "ftp://images.example.org/", "data:image/png,x",
    "gopher://images.example.org:{p}/_", "dict://images.example.org:{p}/", "jar:http://images.example.org:{p}!/",
    "unix:///var/run/docker.sock", "http+unix://%2fvar%2frun/", "HTTP://127.0.0.2:{p}/", "images.example.org:{p}/",
]  # fmt: skip
LOCATIONS = [
    "http://127.0.0.2:{p}/", "http://localhost:{p}/", "http://169.254.169.254/latest/meta-data/", "//127.0.0.2:{p}/",
    "http://images.example.org@127.0.0.2:{p}/", "http://[::1]:{p}/", "file:///etc/passwd", "/\\127.0.0.2:{p}/",
    "http://2130706434:{p}/", "http://other.example.org:{p}/",
]  # fmt: skip


@dataclass
class Net:
    """A site that stands for the open internet, one that must not be reached, and the service."""

    outside: Site
    inside: Site
    live: Live
    resolve: Resolver
    location: str = ""

    def score(self, url: str) -> Answer:
        return self.live.send("POST", "/v1/score", {"image": {"url": url}, "text": "A kite."})

    def url(self, path: str = "/") -> str:
        return f"http://{HOST}:{self.outside.port}{path}"


@pytest.fixture(scope="module")
def net(models: ScorerPool) -> Iterator[Net]:
    def outside(handler: BaseHTTPRequestHandler) -> None:
        answers = {
            "/picture": body(picture()),
            "/redirect": body(b"", 302, Location=found.location),
            "/large": body(b"x" * 40_000),
            "/404": body(b"", 404),
            "/page": body(b"<html>"),
        }
        answers[handler.path](handler)

    with (
        serving(outside) as open_site,
        serving(body(SECRET), "127.0.0.2", open_site.port) as inner_site,
    ):
        resolve = Resolver("127.0.0.1")
        others = (f"other.example.org:{open_site.port}", "down.example.org:1")
        fetch = guarded_fetcher(open_site, *others, resolve=resolve, max_bytes=30_000)
        with helpers.serving(app_of(models, fetcher=fetch)) as live:
            found = Net(open_site, inner_site, live, resolve)
            yield found


def assert_refused(net: Net, answer: Answer, code: str = "image_url_refused") -> None:
    assert (answer.status, answer.json()["code"]) == (422, code), answer
    assert SECRET not in answer.body
    assert net.inside.asked == []


def test_an_allowed_picture_is_scored(net: Net) -> None:
    """Negative control: the way in is open, so what follows is refused and not broken."""
    answer = net.score(net.url("/picture"))
    assert answer.status == 200, answer
    direct = net.live.send("POST", "/v1/score", {"image": helpers.encoded(picture()), "text": "A kite."})
    gaps: list[Any] = [[token["logit_gap"] for token in one.json()["tokens"]] for one in (answer, direct)]
    assert gaps[0] == pytest.approx(gaps[1], abs=1e-4)


def test_the_list_is_long_enough() -> None:
    assert len({*ADDRESSES, *FORMS, *LOCATIONS}) >= 40


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_address_leads_inside(net: Net, address: str) -> None:
    asked = len(net.outside.asked)
    for scheme in ("http", "https"):
        assert_refused(net, net.score(f"{scheme}://{address}:{net.inside.port}/"))
    assert_refused(net, net.score(f"http://{address}/"))
    assert len(net.outside.asked) == asked


@pytest.mark.parametrize("form", FORMS)
def test_no_form_leads_inside(net: Net, form: str) -> None:
    asked = len(net.outside.asked)
    assert_refused(net, net.score(form.replace("{p}", str(net.inside.port))))
    assert len(net.outside.asked) == asked


@pytest.mark.parametrize("location", LOCATIONS)
def test_no_redirect_leads_inside(net: Net, location: str) -> None:
    net.location = location.replace("{p}", str(net.inside.port))
    assert_refused(net, net.score(net.url("/redirect")))


def test_no_second_answer_of_dns_leads_inside(net: Net) -> None:
    net.resolve.answers, before = [["127.0.0.1"], ["127.0.0.2"]], net.resolve.answers
    net.resolve.asked.clear()
    try:
        assert net.score(net.url("/picture")).status == 200
        assert len(net.resolve.asked) == 1
        assert_refused(net, net.score(net.url("/picture")))  # asked again: now it leads inside
        net.resolve.answers = [["127.0.0.1", "127.0.0.2"]]
        assert_refused(net, net.score(net.url("/picture")))
    finally:
        net.resolve.answers = before


def test_urls_are_off_unless_a_host_is_allowed(live: Live) -> None:
    answer = live.send("POST", "/v1/score", {"image": {"url": "http://images.example.org/a.png"}, "text": "A kite."})
    assert (answer.status, answer.json()["code"]) == (422, "image_url_refused")
    assert "--allow-image-host" in answer.json()["detail"]


def test_an_address_is_held_to_be_public_where_nothing_stands_in_for_the_internet() -> None:
    assert first_loopback is not None  # what these tests replace …
    from service.scoring import ScoringService

    service = ScoringService(helpers.settings(allow_image_host=(HOST,)))
    assert service.fetches.fetcher.is_allowed.__name__ == "is_public"  # … and the service does not
    assert service.fetches.fetcher.hosts == (HOST,)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/large", 413, "image_too_large"),
        ("/404", 422, "image_missing"),
        ("/page", 415, "image_format"),
    ],
)
def test_what_a_host_delivers_is_checked(net: Net, path: str, status: int, code: str) -> None:
    answer = net.score(net.url(path))
    assert (answer.status, answer.json()["code"]) == (status, code)


def test_a_host_that_does_not_answer_is_no_error_of_ours(net: Net) -> None:
    answer = net.score("http://down.example.org:1/picture")
    assert (answer.status, answer.json()["code"]) == (422, "image_not_fetched")
