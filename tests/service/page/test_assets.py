"""The page's files as they are served; no browser needed."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from scorer.mini import SAMPLE_PATH
from service.page import CONTENT_SECURITY_POLICY, assets, router

ROOT = Path(__file__).resolve().parents[3]
NAMES = sorted(assets())


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    app.include_router(router)
    return TestClient(app)


def test_every_file_of_the_package_is_served(client: TestClient) -> None:
    folder = ROOT / "service" / "page"
    static = {path.name for path in (folder / "static").iterdir()}
    samples = {f"samples/{path.name}" for path in (folder / "samples").iterdir()}
    assert set(NAMES) == static | samples
    for name in NAMES:
        response = client.get(f"/page/{name}")
        path = folder / name if name.startswith("samples/") else folder / "static" / name
        assert (response.status_code, response.content) == (200, path.read_bytes())


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page/main.js", "text/javascript; charset=utf-8"),
        ("/page/page.css", "text/css; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
        ("/page/samples/samples.json", "application/json"),
        ("/page/samples/scene-00009.jpg", "image/jpeg"),
        ("/page/samples/scene-00016.png", "image/png"),
    ],
)
def test_types(client: TestClient, path: str, media_type: str) -> None:
    assert client.get(path).headers["content-type"] == media_type


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/samples/scene-00009.jpg"])
def test_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' blob: data:"
    assert policy["form-action"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert not re.search(r"unsafe|\*|https?:", CONTENT_SECURITY_POLICY)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/", "/page/page.css"])
def test_head_is_get_without_its_body(client: TestClient, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == got.headers
    assert int(head.headers["content-length"]) == len(got.content)


def test_what_the_browser_has_is_not_sent_again(client: TestClient) -> None:
    tag = client.get("/page/main.js").headers["etag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = client.get("/page/main.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert "content-security-policy" in again.headers
    for other in ('"other"', tag.strip('"'), client.get("/").headers["etag"]):
        assert client.get("/page/main.js", headers={"If-None-Match": other}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/nothing.js",
        "/page/../__init__.py",
        "/page/__init__.py",
        "/page/static/main.js",
        "/page/..%2f__init__.py",
        "/page/%2e%2e/%2e%2e/page/__init__.py",
        "/page/samples/../../__init__.py",
        "/page//etc/passwd",
        "/page/main.js%00.css",
        "/page/MAIN.JS",
        "/page/" + "a" * 5000,
    ],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert len(response.content) < 300


def test_other_methods_are_refused(client: TestClient) -> None:
    assert client.post("/").status_code == 405
    assert client.delete("/page/main.js").status_code == 405


def test_the_page_is_no_part_of_the_api_description(client: TestClient) -> None:
    assert client.get("/openapi.json").json()["paths"] == {}


def test_samples_are_rows_of_the_packaged_dataset() -> None:
    rows = {row["id"]: row for path in SAMPLE_PATH.glob("*.parquet") for row in pq.read_table(path).to_pylist()}
    listed = json.loads(assets()["samples/samples.json"].body)
    assert {f"samples/{sample['file']}" for sample in listed} | {"samples/samples.json"} == {
        name for name in NAMES if name.startswith("samples/")
    }
    for sample in listed:
        row = rows[sample["id"]]
        assert sample["caption"] == row["caption"]
        assert sample["planted"] == row["planted"]
        assert assets()[f"samples/{sample['file']}"].body == row["image"]["bytes"]
    assert sum(bool(sample["planted"]) for sample in listed) == 2  # as the page says


def test_nothing_is_inline_and_nothing_remote() -> None:
    html = assets()["index.html"].body.decode()
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?![^>]*\ssrc=)|javascript:", html)
    for name in NAMES:
        if name.endswith((".html", ".css", ".js")):
            text = assets()[name].body.decode()
            assert not re.search(r"https?://|//cdn|@import|innerHTML|outerHTML|insertAdjacent|eval\(", text), name


def test_every_reference_leads_to_a_file() -> None:
    html = assets()["index.html"].body.decode()
    assert len(referred := re.findall(r'(?:href|src)="page/([^"]+)"', html)) >= 3
    assert set(referred) <= set(NAMES)
    for name in NAMES:
        if name.endswith(".js"):
            assert set(re.findall(r'from "\./([^"]+)"', assets()[name].body.decode())) <= set(NAMES), name


def test_ids_that_scripts_look_for_are_in_the_page() -> None:
    html = assets()["index.html"].body.decode()
    scripts = "".join(assets()[name].body.decode() for name in NAMES if name.endswith(".js"))
    made = set(re.findall(r'id: "([\w-]+)"', scripts))
    assert set(re.findall(r'byId\("([\w-]+)"\)', scripts)) <= set(re.findall(r'id="([\w-]+)"', html)) | made


def test_the_palette_is_the_reports() -> None:
    report = (ROOT / "pipelines" / "report" / "assets" / "report.css").read_text()
    page = assets()["page.css"].body.decode()
    palette = re.findall(r"^ *--[\w-]+: .*;$", report, re.MULTILINE)
    assert len(palette) > 10
    assert re.findall(r"^ *--[\w-]+: .*;$", page, re.MULTILINE) == palette


def test_the_files_are_packaged() -> None:
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert packaged["service.page"] == ["static/*", "samples/*"]
