"""The API reference at ``/docs`` (Swagger UI) and ``/redoc`` (ReDoc), without any other host.

FastAPI's own pages load their scripts from a CDN. These take them from the package fastapi-offline, which is released
with current versions; swagger-ui-bundle stays at Swagger UI 4, which cannot read OpenAPI 3.1.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, HTTPException, Request, Response

from service.page import CONTENT_SECURITY_POLICY, Asset, answer, asset_of

router = APIRouter(include_in_schema=False)

_STYLES: Final = (
    base64.b64encode(hashlib.sha256(b"").digest()).decode(),  # an element that is filled through the CSSOM
    "QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc=",  # a sheet in ReDoc 2.5
)
"""SHA-256 of the style elements that ReDoc makes; no others are allowed."""

POLICY: Final = CONTENT_SECURITY_POLICY.replace(
    "style-src 'self'", " ".join(("style-src 'self'", *(f"'sha256-{one}'" for one in _STYLES)))
).replace("; require-trusted-types-for 'script'; trusted-types 'none'", "")
"""The page's policy, but for what both libraries cannot do without: they write sanitised Markdown to innerHTML."""

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tokensight API</title>
<link rel="icon" href="page/icon.svg">
<link rel="stylesheet" href="reference/swagger-ui.css">
</head>
<body>
<div id="reference"></div>
<script src="reference/{library}"></script>
<script src="reference/{start}"></script>
</body>
</html>
"""
_OWN: Final = {
    "docs.html": _PAGE.format(library="swagger-ui-bundle.js", start="docs.js"),
    "redoc.html": _PAGE.format(library="redoc.standalone.js", start="redoc.js").replace(
        '<link rel="stylesheet" href="reference/swagger-ui.css">\n', ""
    ),
    "docs.js": 'SwaggerUIBundle({url: "openapi.json", dom_id: "#reference", deepLinking: true, validatorUrl: null});\n',
    # Its search would run in a worker made of a string, which the policy forbids.
    "redoc.js": 'Redoc.init("openapi.json", {disableSearch: true}, document.getElementById("reference"));\n',
}
_LIBRARIES: Final = ("swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js")
_REMOTE_LOGO: Final = (b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"data:,")
"""The one thing that ReDoc loads from elsewhere, beside the words that name its makers; and an empty image."""


@cache
def assets() -> dict[str, Asset]:
    """Return the scripts and styles by their name under ``/reference/``."""
    folder = files("fastapi_offline") / "static"
    libraries = {name: (folder / name).read_bytes().replace(*_REMOTE_LOGO) for name in _LIBRARIES}
    own = {name: text.encode() for name, text in _OWN.items()}
    return {name: asset_of(body, name) for name, body in (libraries | own).items()}


@router.api_route("/docs", methods=["GET", "HEAD"])
async def swagger(request: Request) -> Response:
    """Serve Swagger UI."""
    return answer(assets()["docs.html"], request, POLICY)


@router.api_route("/redoc", methods=["GET", "HEAD"])
async def redoc(request: Request) -> Response:
    """Serve ReDoc."""
    return answer(assets()["redoc.html"], request, POLICY)


@router.api_route("/reference/{name}", methods=["GET", "HEAD"])
async def asset(name: str, request: Request) -> Response:
    """Serve one of their files. Raises HTTPException 404 for any other name."""
    found = assets().get(name)
    if found is None:
        raise HTTPException(404, f"the API reference has no file {name[:100]!r}")
    return answer(found, request, POLICY)
