"""The key: every path but the open ones, however it is spelled, by raw requests to a real server."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from service.scorer_pool import ScorerPool
from service.security import OPEN_PATHS, routed_path
from tests.service.helpers import KEY, Live, app_of, request, serving

OTHER_KEY = "schlüssel-🗝-zwei"

PATHS = [
    "/",
    "/v1/score",
    "/v1/score/",
    "/v1/score/batch",
    "/v1/weights",
    "/v1/models",
    "/version",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/docs/oauth2-redirect",
    "/page/app.js",
    "/nowhere",
    "//v1/score",
    "///health/live",
    "//health/live",
    "/health/live/",
    "/health/live//",
    "/health//live",
    "/HEALTH/LIVE",
    "/health/live/../../v1/score",
    "/health/live/%2e%2e/%2e%2e/v1/score",
    "/health/live%2f..%2f..%2fv1%2fscore",
    "/health/live%00",
    "/health/live%20",
    "/health/live;/v1/score",
    "/metrics/../v1/score",
    "/metrics%2f..%2fv1%2fmodels",
    "/v1/../v1/score",
    "/v1/%2e%2e/v1/score",
    "/%76%31/score",
    "/v1%2fscore",
    "/./v1/score",
    "/v1/./score",
    "/v1\\score",
    "/v1/score%0d%0aX-API-Key:%20x",
    "/v1/score?x=/health/live",
    "/v1/score#/health/live",
    "http://127.0.0.1/v1/score",
    "http://127.0.0.1/v1/models?/health/live",
    "*",
]
HOSTS = ["evil.example.org", "127.0.0.1/health/live?", "x/health/live#", "", "[::1", "a b", "/health/live", "x" * 5000]
METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "health"]


@pytest.fixture(scope="module")
def guarded(models: ScorerPool) -> Iterator[Live]:
    with serving(app_of(models, api_keys=f"{KEY},{OTHER_KEY}")) as live:
        yield live


@pytest.mark.parametrize("path", PATHS)
def test_no_path_is_open_without_a_key(guarded: Live, path: str) -> None:
    for method in ("GET", "POST"):
        answer = guarded.send(method, path, headers={"X-Original-URL": "/health/live", "X-Rewrite-URL": "/health/live"})
        assert answer.status in (400, 401), (method, path, answer)  # 400: not even HTTP to the server


@pytest.mark.parametrize("path", ["/v1/score", "/v1/models", "/nowhere"])
def test_no_host_header_opens_a_path(guarded: Live, path: str) -> None:
    for host in HOSTS:
        assert guarded.send("GET", path, host=host).status in (400, 401), host


def test_no_method_opens_a_path(guarded: Live) -> None:
    for method in METHODS:
        assert guarded.send(method, "/v1/score").status in (400, 401), method
    for method in set(METHODS) - {"GET"}:
        assert guarded.send(method, "/health/live").status in (400, 401), method


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
def test_open_paths_need_no_key(guarded: Live, path: str) -> None:
    assert guarded.send("GET", path).status == 200
    assert guarded.send("GET", path + "?x=1").status == 200


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_every_key_opens_in_every_form(guarded: Live, key: str) -> None:
    raw = key.encode().decode("latin-1")  # what http.client sends as these bytes
    basic = base64.b64encode(f"any one:{key}".encode()).decode()
    for headers in (
        {"Authorization": f"Bearer {raw}"},
        {"Authorization": f"bEaReR  {raw}"},
        {"X-API-Key": raw},
        {"Authorization": f"Basic {basic}"},
    ):
        assert guarded.send("GET", "/v1/models", headers=headers).status == 200, headers
    assert guarded.send("POST", "/v1/score", request(), {"X-API-Key": raw}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer"},
        {"Authorization": KEY},
        {"Authorization": f"Token {KEY}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY},{OTHER_KEY.encode().decode('latin-1')}"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + base64.b64encode(KEY.encode()).decode()},
        {"Authorization": "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()},
        {"Authorization": "Basic " + base64.b64encode(f"u:x:{KEY}".encode()).decode()},
        {"X-API-Key": ""},
        {"X-API-Key": KEY.upper()},
        {"X_API_Key": KEY},
        {"Cookie": f"key={KEY}"},
        {"Proxy-Authorization": f"Bearer {KEY}"},
    ],
)
def test_what_is_not_a_key_does_not_open(guarded: Live, headers: dict[str, str]) -> None:
    answer = guarded.send("GET", "/v1/models", headers=headers)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="tokensight"'
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "unauthorized"
    assert KEY not in answer.body.decode()


def test_a_key_in_the_query_does_not_open(guarded: Live) -> None:
    assert guarded.send("GET", f"/v1/models?api_key={KEY}&X-API-Key={KEY}").status == 401


def test_without_keys_everything_is_open(live: Live) -> None:
    """Negative control: the statuses above are the key's doing."""
    assert live.send("GET", "/v1/models").status == 200
    assert live.send("GET", "/nowhere").status == 404
    assert live.send("GET", "//v1/models").status == 404
    assert live.send("POST", "/v1/score/", request()).status == 404, "no redirect that a Host header could steer"
    assert live.send("OPTIONS", "/v1/score").status == 405


def test_a_refused_body_is_not_read(guarded: Live) -> None:
    """The key comes before everything else: 401, not 413."""
    assert guarded.send("POST", "/v1/score", headers={"Content-Length": str(10**12)}).status == 401


@pytest.mark.parametrize(
    ("scope", "path"),
    [
        ({"path": "/a/health/live", "root_path": "/a"}, "/health/live"),
        ({"path": "/ab/health/live", "root_path": "/a"}, "/ab/health/live"),
        ({"path": "/health/live", "root_path": ""}, "/health/live"),
        ({"path": "/health/live"}, "/health/live"),
        ({"path": "/a", "root_path": "/a"}, "/a"),
    ],
)
def test_the_routed_path_is_the_routers(scope: dict[str, str], path: str) -> None:
    from starlette._utils import get_route_path

    assert routed_path(scope) == path
    assert get_route_path(scope) in (path, "")  # "" matches no route


def test_keys_are_compared_by_digest_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every configured key is compared, by hmac.compare_digest, whichever one fits."""
    from service import security

    compared: list[tuple[bytes, bytes]] = []
    real = security.hmac.compare_digest

    def counting(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(security.hmac, "compare_digest", counting)
    check = security.KeyCheck(None, ["first-key", "second-key"])  # type: ignore[arg-type]  # nothing behind it
    assert check._is_known({"headers": [(b"x-api-key", b"first-key")]})
    assert len(compared) == 2
    assert {len(side) for pair in compared for side in pair} == {32}
