"""The web page at ``/``: static files, read once and served with a strict content security policy.

The page uses the HTTP API like any other client; this package depends on neither the model nor the API.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from fastapi import APIRouter, HTTPException, Request, Response

router = APIRouter(include_in_schema=False)

TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
}

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        # No string becomes markup or code: the browser refuses innerHTML and similar sinks.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Cached but revalidated every time: an upgraded server never meets an outdated script. A cache hit costs a 304.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class Asset:
    """A file of the page: its bytes, media type and entity tag (a quoted digest of the bytes)."""

    body: bytes
    media_type: str
    etag: str


@cache
def assets() -> dict[str, Asset]:
    """Return every file of the page by its path under ``/page/``. Nothing else can be requested."""
    package = files(__name__)
    found = {entry.name: _read(entry) for entry in (package / "static").iterdir() if _served(entry)}
    found |= {f"samples/{entry.name}": _read(entry) for entry in (package / "samples").iterdir() if _served(entry)}
    return found


@router.api_route("/", methods=["GET", "HEAD"])
async def index(request: Request) -> Response:
    """Serve the page itself."""
    return answer(assets()["index.html"], request)


@router.api_route("/page/{path:path}", methods=["GET", "HEAD"])
async def asset(path: str, request: Request) -> Response:
    """Serve one of its files. Raises HTTPException 404 for any other path."""
    found = assets().get(path)
    if found is None:
        raise HTTPException(404, f"the page has no file {path[:100]!r}")
    return answer(found, request)


def _served(entry: Traversable) -> bool:
    return _suffix(entry.name) in TYPES


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]


def _read(entry: Traversable) -> Asset:
    """Return a packaged file."""
    return asset_of(entry.read_bytes(), entry.name)


def asset_of(body: bytes, name: str) -> Asset:
    """Return bytes as the file of that name, whose ending decides the media type."""
    return Asset(body, TYPES[_suffix(name)], f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def answer(asset: Asset, request: Request, policy: str = CONTENT_SECURITY_POLICY) -> Response:
    """Answer with the asset, or 304 if the browser already has it (RFC 9110, 13.1.2: weak comparison).

    For HEAD, the server drops the body and keeps its length.
    """
    headers = {**HEADERS, "Content-Security-Policy": policy, "ETag": asset.etag}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if asset.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(asset.body, media_type=asset.media_type, headers=headers)
