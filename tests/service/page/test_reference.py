"""``/docs`` and ``/redoc``: everything comes from this server, and the browser finds nothing to complain about."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from service.page import CONTENT_SECURITY_POLICY
from service.page.reference import POLICY
from tests.service.page.browser import Browser
from tests.service.page.server import Server

PATHS = ("/docs", "/redoc")


@pytest.mark.parametrize("path", PATHS)
def test_nothing_comes_from_elsewhere(client: TestClient, path: str) -> None:
    page = client.get(path)
    assert page.headers["content-security-policy"] == POLICY
    assert "//" not in page.text
    assert not re.search(r"<script>|\sstyle=|\son\w+=", page.text)
    referred = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(referred) >= 3
    for name in referred:
        found = client.get(f"/{name}")
        assert (found.status_code, found.headers["x-content-type-options"]) == (200, "nosniff"), name
        assert found.headers["content-type"].startswith(("text/javascript", "text/css", "image/")), name
    assert client.get("/reference/nothing.js").status_code == 404
    assert client.get("/reference/..%2f__init__.py").status_code == 404


def test_the_policy_is_the_pages_but_for_two_parts() -> None:
    own, pages = (
        dict(part.partition(" ")[::2] for part in one.split("; ")) for one in (POLICY, CONTENT_SECURITY_POLICY)
    )
    assert pages.keys() - own.keys() == {"require-trusted-types-for", "trusted-types"}
    assert {name for name in own if own[name] != pages[name]} == {"style-src"}
    assert not re.search(r"unsafe|\*|https?:", POLICY)


@pytest.mark.parametrize("path", PATHS)
def test_the_browser_shows_every_route_and_does_not_complain(server: Server, chromium: Browser, path: str) -> None:
    server.reset()
    chromium.complaints()
    chromium.driver.get(server.url + path)
    chromium.wait(lambda: "Score several samples" in chromium.js("return document.body.innerText"))
    text = chromium.js("return document.body.innerText")
    for summary in ("Score one sample", "Derive weights from raw scores", "List models and methods"):
        assert summary in text
    # ReDoc also says there that a field is null in one case and text in another, which is so.
    assert [one for one in chromium.complaints() if "Incompatible types in allOf" not in one] == []
    hosts = chromium.js("return performance.getEntriesByType('resource').map((entry) => new URL(entry.name).origin)")
    assert set(hosts) == {server.url}
