"""Access control: require an API key on every path except a few open ones."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import ProblemError, problem_response

OPEN_PATHS: Final = frozenset({"/health/live", "/health/ready", "/metrics"})
"""Paths that need no key. Compared exactly: no other spelling of a path is open."""

SCHEMES: Final[Mapping[str, Mapping[str, str]]] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "the key is the password; any user name"},
}
"""The three ways to give a key, as OpenAPI describes them."""

_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="tokensight"'}


class KeyCheck:
    """ASGI middleware that rejects a request without a valid key before anything else runs.

    The decision depends on the path that the router matches, never on a URL built from the Host header. A path that is
    not listed as open needs a key, whether or not a route exists.

    Args:
        keys: Accepted keys; without any, every path is open.
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
            "a valid key is required: Authorization: Bearer KEY, X-API-Key: KEY, or HTTP Basic with it as password",
            _CHALLENGE,
        )
        await problem_response(problem, scope)(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        return scope["type"] == "http" and scope["method"] == "GET" and routed_path(scope) in OPEN_PATHS

    def _is_known(self, scope: Scope) -> bool:
        known = False
        for given in _given_keys(scope):
            digest = _digest(given)
            for expected in self._digests:  # compare with all keys: timing must not reveal a near match
                known |= hmac.compare_digest(digest, expected)
        return known


def routed_path(scope: Scope) -> str:
    """Return the path as the router matches it: decoded once, without the prefix where the application is mounted."""
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
    # Digests have equal lengths for the comparison, and keys stay in memory no longer than needed.
    return hashlib.sha256(key).digest()
