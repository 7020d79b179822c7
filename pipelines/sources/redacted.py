"""URLs as they may be written down."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

_SECRET: Final = ("sig", "token", "secret", "password", "passwd", "credential", "key", "auth")
"""Names of query parameters that hold one of these are secrets."""


def without_secrets(url: str) -> str:
    """A URL without user and password, and without its query if that holds a secret; anything else as it is."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    secret = any(word in name.lower() for name, _ in query for word in _SECRET)
    host = parts.netloc.rpartition("@")[2]
    if host == parts.netloc and not secret:
        return url
    return urlunsplit(parts._replace(netloc=host, query="" if secret else parts.query))
