"""What Swift's servers load from here, in their own environment: a cache without memcached, and a lock."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from typing import Any

from eventlet.semaphore import Semaphore


class Cache:
    """What Swift asks of memcached, in the memory of the one proxy process; values go through JSON as there."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[float, str]] = {}

    def get(self, key: str, raise_on_error: bool = False) -> Any:
        until, value = self._entries.get(key, (0.0, "null"))
        return json.loads(value) if until > time.time() else None

    def set(self, key: str, value: Any, time: float = 0, **_: Any) -> None:
        self._entries[key] = (_until(time), json.dumps(value))

    def incr(self, key: str, delta: int = 1, time: float = 0, **_: Any) -> int:
        value = max(0, int(self.get(key) or 0) + int(delta))
        self.set(key, value, time=time)
        return value

    def decr(self, key: str, delta: int = 1, time: float = 0, **_: Any) -> int:
        return self.incr(key, -int(delta), time=time)

    def delete(self, key: str, server_key: str | None = None) -> None:
        self._entries.pop(key, None)


def _until(seconds: float) -> float:
    return time.time() + seconds if seconds else float("inf")


def cache(settings: dict[str, str], **_: str) -> Any:
    """Filter factory: the cache, where Swift looks for it."""
    shared = Cache()

    def make(app: Any) -> Any:
        def call(environ: dict[str, Any], start_response: Any) -> Any:
            environ["swift.cache"] = shared
            return app(environ, start_response)

        return call

    return make


def one_writer(settings: dict[str, str], **_: str) -> Any:
    """Filter factory for the object server: one PUT of an object at a time, from its check to its write."""
    locks: defaultdict[str, Semaphore] = defaultdict(Semaphore)

    def make(app: Any) -> Any:
        def call(environ: dict[str, Any], start_response: Any) -> Any:
            if environ["REQUEST_METHOD"] != "PUT":
                return app(environ, start_response)
            with locks[environ["PATH_INFO"]]:
                return list(app(environ, start_response))

        return call

    return make
