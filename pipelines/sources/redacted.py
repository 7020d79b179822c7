"""Remove secrets from URLs before they are stored."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

_SECRET: Final = ("sig", "token", "secret", "password", "passwd", "credential", "key", "auth")
"""A query parameter whose name contains one of these is a secret."""


def without_secrets(url: str) -> str:
    """Return a URL without user and password, and without its query if that contains a secret; a path unchanged."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    secret = any(word in name.lower() for name, _ in query for word in _SECRET)
    host = parts.netloc.rpartition("@")[2]
    if host == parts.netloc and not secret:
        return url
    return urlunsplit(parts._replace(netloc=host, query="" if secret else parts.query))
