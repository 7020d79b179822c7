"""Fetch the images of requests so that a host that does not answer delays only its own images.

Every fetch in progress has a thread, and there are as many threads as fetches, so none waits for another host's. Of one
host, ``per_host`` are in progress at once; further ones wait without a thread, and waiting counts towards the time
limit. However many wait for one host, an image of another host that has a free place is fetched.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from threading import Lock

from scorer.errors import FailureCode, RowError
from scorer.fetching.fetcher import Fetcher
from scorer.fetching.urls import short
from service.limits import PendingBytes, busy
from service.metrics import Metrics


class Fetches:
    """The fetches in progress. Use it from one event loop only.

    Args:
        fetcher: Fetches one image; its ``seconds`` limit the whole, waiting included.
        total: Fetches in progress, for which there are threads, and fetches in progress or waiting beyond which no
            other may wait: 429.
        per_host: Fetches in progress from one host and port.
        pending: The bytes of a fetched image count here until its sample is encoded.
    """

    def __init__(self, fetcher: Fetcher, total: int, per_host: int, pending: PendingBytes, metrics: Metrics) -> None:
        self.fetcher = fetcher
        self._total = total
        self._per_host = per_host
        self._pending = pending
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(total, "fetch")  # starts a thread only if no other is idle
        self._count = 0  # in progress or waiting
        self._running = 0
        self._hosts: dict[tuple[str, int], _Host] = {}

    @asynccontextmanager
    async def image(self, url: str) -> AsyncIterator[bytes]:
        """Yield the image at ``url``; its bytes count as pending until the context ends.

        Raises:
            RowError: As :meth:`~scorer.fetching.fetcher.Fetcher.fetch` does.
            ProblemError: 429 if too many fetches, or too many bytes, are in progress.
        """
        parts = self.fetcher.check(url)
        self._check_room((parts.host, parts.port))
        bytes_taken = _Taken(self._pending)
        try:
            yield await self._fetched(url, (parts.host, parts.port), bytes_taken)
        finally:
            bytes_taken.give_back()

    def _check_room(self, key: tuple[str, int]) -> None:
        host = self._hosts.get(key)
        must_wait = host is not None and host.fetches >= self._per_host
        used = self._count if must_wait else self._running
        if used >= self._total:
            self._metrics.rejects.labels("fetches").inc()
            raise busy(f"{used} images are being fetched, as many as max_fetches={self._total}", 1)

    async def _fetched(self, url: str, key: tuple[str, int], bytes_taken: _Taken) -> bytes:
        seconds = self.fetcher.seconds
        deadline = time.monotonic() + seconds
        loop = asyncio.get_running_loop()
        host = self._hosts.setdefault(key, _Host(asyncio.Semaphore(self._per_host)))
        host.fetches += 1
        self._count += 1
        job: Future[bytes] | None = None

        def end() -> None:
            self._count -= 1
            host.fetches -= 1
            if not host.fetches:
                del self._hosts[key]
            if job is not None:
                self._running -= 1
                host.slots.release()

        def thread_ended(_: Future[bytes]) -> None:
            with suppress(RuntimeError):  # the loop has ended, and with it the service
                loop.call_soon_threadsafe(end)

        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await host.slots.acquire()
                job = self._pool.submit(self.fetcher.fetch, url, deadline, bytes_taken.take)
                self._running += 1
                # A client may leave, and a name may take longer to resolve; the slot is free when the thread is.
                job.add_done_callback(thread_ended)
                return await asyncio.wrap_future(job)
        except TimeoutError:
            if not limit.expired():
                raise
            why = (
                "its host did not send it in time"
                if job is not None
                else f"it waited behind others from this host (max_fetches_per_host={self._per_host} at once)"
            )
            raise RowError(
                FailureCode.IMAGE_NOT_FETCHED,
                f"{short(url)} was not fetched within image_fetch_seconds={seconds:g}: {why}; try again later",
            ) from None
        finally:
            if job is None:
                end()

    def shutdown(self) -> None:
        """End the idle threads now, and the others when their fetch ends."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass
class _Host:
    """The slots of one host, and its fetches in progress or waiting."""

    slots: asyncio.Semaphore
    fetches: int = 0


class _Taken:
    """The pending bytes of one fetch. Its thread may still be reading when they are given back: then it is stopped."""

    def __init__(self, pending: PendingBytes) -> None:
        self._pending = pending
        self._lock = Lock()
        self._size: int | None = 0

    def take(self, size: int) -> None:
        with self._lock:
            if self._size is None:
                raise RowError(FailureCode.IMAGE_NOT_FETCHED, "the image is no longer wanted: its request has ended")
            self._pending.take(size)
            self._size += size

    def give_back(self) -> None:
        with self._lock:
            self._pending.give_back(self._size or 0)
            self._size = None
