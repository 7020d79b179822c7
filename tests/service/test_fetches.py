"""Hosts of images that accept a connection and say nothing: they delay their own images and no others."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from scorer.errors import FailureCode, RowError
from scorer.fetching.fetcher import Fetcher
from service.fetches import Fetches
from service.limits import PendingBytes
from service.metrics import Metrics
from service.problems import ProblemError
from service.scorer_pool import ScorerPool
from tests.scorer.web import Resolver, body, first_loopback
from tests.scorer.web import serving as site
from tests.service.held import gauge, head
from tests.service.helpers import Answer, Live, app_of, eventually, picture, serving

SILENT = 16


@contextmanager
def silent() -> Iterator[int]:
    """The port of a server that the kernel connects to, and that never reads or writes."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


def url(port: int) -> str:
    return f"http://images.example.org:{port}/"


def fetcher(*ports: int, seconds: float = 3.0) -> Fetcher:
    hosts = tuple(f"images.example.org:{port}" for port in ports)
    return Fetcher(hosts, seconds=seconds, resolve=Resolver("127.0.0.1"), is_allowed=first_loopback)


def score(live: Live, address: str) -> Answer:
    return live.send("POST", "/v1/score", {"image": {"url": address}, "text": "A kite."})


def in_threads(live: Live, addresses: list[str]) -> list[threading.Thread]:
    threads = [threading.Thread(target=score, args=(live, address)) for address in addresses]
    for thread in threads:
        thread.start()
    return threads


def test_silent_hosts_do_not_delay_another(models: ScorerPool) -> None:
    with ExitStack() as stack:
        ports = [stack.enter_context(silent()) for _ in range(SILENT)]
        good = stack.enter_context(site(body(picture())))
        app = app_of(models, fetcher=fetcher(good.port, *ports), max_fetches=64, max_fetches_per_host=2)
        live = stack.enter_context(serving(app))
        threads = in_threads(live, [url(port) for port in ports for _ in range(3)])
        eventually(lambda: gauge(live, "in_flight") == 3 * SILENT)
        began = time.monotonic()
        answer = score(live, url(good.port))
        took = time.monotonic() - began
        assert answer.status == 200
        assert gauge(live, "in_flight") == 3 * SILENT, "negative control: the silent ones are still being fetched"
        assert took < 2
        for thread in threads:
            thread.join(30)


def test_of_one_host_only_so_many_are_fetched_at_once_and_waiting_counts(models: ScorerPool) -> None:
    with silent() as port, serving(
        app_of(models, fetcher=fetcher(port, seconds=1.0), max_fetches_per_host=1)
    ) as live:  # fmt: skip
        began = time.monotonic()
        batch = {"items": [{"image": {"url": url(port)}, "text": "A kite."}] * 5}
        results = live.send("POST", "/v1/score/batch", batch).json()["results"]
        assert time.monotonic() - began < 3, "five times a second, one after the other, would be five"
        assert {result["error"]["code"] for result in results} == {"image_not_fetched"}
        details = [result["error"]["detail"] for result in results]
        # The first frees its place at the deadline of the others, of which some may just come to begin.
        assert 1 <= sum("max_fetches_per_host" in detail for detail in details) <= 4
        assert all("longer than 1 seconds" in detail or "image_fetch_seconds=1" in detail for detail in details)


def test_beyond_the_total_images_are_told_to_come_again(models: ScorerPool) -> None:
    with silent() as port, site(body(picture())) as good:
        app = app_of(models, fetcher=fetcher(port, good.port), max_fetches=4, max_fetches_per_host=2)
        with serving(app) as live:
            threads = in_threads(live, [url(port)] * 4)
            eventually(lambda: gauge(live, "in_flight") == 4)
            time.sleep(0.1)
            answer = score(live, url(port))
            assert (answer.status, answer.json()["code"], answer.headers["retry-after"]) == (429, "queue_full", "1")
            assert "max_fetches=4" in answer.json()["detail"]
            assert live.send("POST", "/v1/score", {"image": {"base64": "AAAA"}, "text": "A."}).status == 415
            assert score(live, url(good.port)).status == 200, "it need not wait for its host"
            for thread in threads:
                thread.join(30)
            in_threads(live, [url(port)])[0].join(30)
            assert gauge(live, 'rejects_total{reason="fetches"}') == 1, "the places are free again"


def test_beyond_the_threads_no_host_is_asked(models: ScorerPool) -> None:
    with silent() as one, silent() as other, site(body(picture())) as good:
        app = app_of(models, fetcher=fetcher(one, other, good.port), max_fetches=4, max_fetches_per_host=2)
        with serving(app) as live:
            threads = in_threads(live, [url(one)] * 2 + [url(other)] * 2)
            eventually(lambda: gauge(live, "in_flight") == 4)
            time.sleep(0.1)
            answer = score(live, url(good.port))
            assert (answer.status, answer.json()["code"]) == (429, "queue_full")
            for thread in threads:
                thread.join(30)
            eventually(lambda: score(live, url(good.port)).status == 200)


def test_a_client_that_leaves_does_not_free_a_place_that_its_thread_still_holds(models: ScorerPool) -> None:
    with silent() as port:
        app = app_of(models, fetcher=fetcher(port), max_fetches=2)
        fetches = app.state.service.fetches
        with serving(app) as live:
            data = json.dumps({"image": {"url": url(port)}, "text": "A kite."}).encode()
            for _ in range(2):
                with socket.create_connection(("127.0.0.1", live.port), 10) as connection:
                    connection.sendall(head(f"Content-Length: {len(data)}") + data)
                    eventually(lambda: gauge(live, "in_flight") == 1)
                eventually(lambda: gauge(live, "in_flight") == 0)
            assert fetches._count == 2
            assert score(live, url(port)).status == 429
            eventually(lambda: fetches._count == 0)
            assert fetches._hosts == {}


def test_a_name_that_takes_too_long_to_resolve_is_given_up() -> None:
    resolved = threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        assert resolved.wait(30)
        return ["127.0.0.2"]

    async def scenario() -> None:
        guarded = Fetcher(("images.example.org",), seconds=0.5, resolve=resolve, is_allowed=first_loopback)
        metrics = Metrics()
        fetches = Fetches(guarded, 4, 4, PendingBytes(1000, metrics), metrics)
        with pytest.raises(
            RowError, match=r"within image_fetch_seconds=0\.5: its host did not send it in time"
        ) as caught:
            async with fetches.image("http://images.example.org/"):
                pass
        assert caught.value.code is FailureCode.IMAGE_NOT_FETCHED
        assert fetches._count == 1, "its thread still waits"
        resolved.set()
        while fetches._count:
            await asyncio.sleep(0.01)
        fetches.shutdown()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_fetched_images_count_as_bytes_in_memory_until_they_are_encoded() -> None:
    async def scenario(port: int) -> None:
        metrics = Metrics()
        pending = PendingBytes(15_000, metrics)
        fetches = Fetches(fetcher(port), 4, 4, pending, metrics)
        async with fetches.image(url(port)) as data:
            assert len(data) == pending.size == 10_000
            with pytest.raises(ProblemError, match="max_pending_bytes=15000"):
                async with fetches.image(url(port)):
                    pass
            assert pending.size == 10_000
        assert pending.size == 0
        async with fetches.image(url(port)) as data:
            assert len(data) == 10_000
        fetches.shutdown()

    with site(body(b"x" * 10_000)) as found:
        asyncio.run(asyncio.wait_for(scenario(found.port), 30))
