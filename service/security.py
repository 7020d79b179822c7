"""Who may ask: an API key on every path but a few, decided on the path that is routed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Iterator
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import ProblemError, problem_response

OPEN_PATHS: Final = frozenset({"/health/live", "/health/ready", "/metrics"})
"""Need no key. Compared exactly, so that no other spelling of a path is open."""

_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="tokensight"'}


class KeyCheck:
    """ASGI middleware: without a valid key, nothing behind it runs.

    Decided on the path that the router matches, never on a URL put together from the Host header; a path that is not
    known to be open needs a key, whether a route exists or not.

    Args:
        keys: any of them opens; with none, everything is open.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str]) -> None:
        self.app = app
        self._digests = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not self._digests or self._is_open(scope) or self._is_known(scope):
            await self.app(scope, receive, send)
            return
        problem = ProblemError(
            401,
            "unauthorized",
            "a valid key is needed: Authorization: Bearer KEY, X-API-Key: KEY, or HTTP Basic with the key as password",
            _CHALLENGE,
        )
        await problem_response(problem, scope)(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        return scope["type"] == "http" and scope["method"] == "GET" and routed_path(scope) in OPEN_PATHS

    def _is_known(self, scope: Scope) -> bool:
        known = False
        for given in _given_keys(scope):
            digest = _digest(given)
            for expected in self._digests:  # all of them: time must not tell which one was near
                known |= hmac.compare_digest(digest, expected)
        return known


def routed_path(scope: Scope) -> str:
    """The path as the router matches it: decoded once, without the prefix that the application is mounted at."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _given_keys(scope: Scope) -> Iterator[bytes]:
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            yield value
        elif name == b"authorization":
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield credentials.strip()
            elif scheme.lower() == b"basic":
                yield from _password(credentials.strip())


def _password(credentials: bytes) -> Iterator[bytes]:
    try:
        user_and_password = base64.b64decode(credentials, validate=True)
    except binascii.Error:
        return
    _, colon, password = user_and_password.partition(b":")
    if colon:
        yield password


def _digest(key: bytes) -> bytes:
    # Equal lengths for the comparison, and no key in memory longer than needed.
    return hashlib.sha256(key).digest()
