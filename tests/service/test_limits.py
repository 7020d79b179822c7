"""What is taken in is bounded: bodies while they stream, slots, deadlines, clients that leave."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from collections.abc import Iterator, Sequence

import pytest
from starlette.types import Message

from scorer.results import Result
from scorer.types import EncodedSample
from service.scorer_pool import ScorerPool
from tests.service.held import Clients, Held, answer_of, gauge, head, held
from tests.service.helpers import Live, app_of, eventually, request, serving

LIMIT = 100_000


@pytest.fixture(scope="module")
def small(models: ScorerPool) -> Iterator[Live]:
    with serving(app_of(models, max_body_bytes=LIMIT, max_pending_bytes=3 * LIMIT // 2)) as live:
        yield live


def test_a_declared_size_is_refused_before_the_body_is_sent(small: Live) -> None:
    with socket.create_connection(("127.0.0.1", small.port), 30) as connection:
        connection.sendall(head(f"Content-Length: {50 * 2**20}"))
        status, problem = answer_of(connection)
    assert (status, problem["code"]) == (413, "body_too_large")


def test_a_chunked_body_is_refused_while_it_streams(small: Live) -> None:
    """No Content-Length: the limit is met in the stream, and the rest is never asked for."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", small.port), 30) as connection:
        connection.sendall(head("Transfer-Encoding: chunked") + chunk + chunk)
        status, problem = answer_of(connection)
        assert small.send("GET", "/health/live").status == 200, "others are served meanwhile"
    assert (status, problem["code"]) == (413, "body_too_large")


def test_a_body_at_the_limit_is_read(small: Live) -> None:
    """Negative control: one byte less, and the body is looked at."""
    for size, status in ((LIMIT, 400), (LIMIT + 1, 413)):
        answer = small.send("POST", "/v1/score", b" " * size, {"Content-Type": "application/json"})
        assert answer.status == status


def test_a_form_is_bounded_too(small: Live) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + b"x" * LIMIT
    assert small.send("POST", "/v1/score", body, headers).status == 413


def test_bodies_in_memory_are_bounded_together(small: Live) -> None:
    """Two bodies that are each allowed, and together are not: the second is told to come again."""
    half = b" " * (LIMIT * 9 // 10)
    with socket.create_connection(("127.0.0.1", small.port), 30) as first:
        first.sendall(head(f"Content-Length: {LIMIT}") + half)  # and no more: it stays in memory
        until = time.monotonic() + 30
        while True:
            answer = small.send("POST", "/v1/score", half, {"Content-Type": "application/json"})
            if answer.status == 429 or time.monotonic() > until:
                break
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        assert "max_pending_bytes" in answer.json()["detail"]
    until = time.monotonic() + 30
    while small.send("POST", "/v1/score", half, {"Content-Type": "application/json"}).status == 429:
        assert time.monotonic() < until, "what a client that left had sent is forgotten"


def test_beyond_the_queue_requests_are_told_to_come_again(models: ScorerPool) -> None:
    with held(models, queue_size=3, max_items=3) as (live, model):
        clients = Clients(live)
        clients.send(3)
        eventually(lambda: gauge(live, "in_flight") == 3)
        refused = live.send("POST", "/v1/score", request())
        assert (refused.status, refused.json()["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        # refused without its body being read
        with socket.create_connection(("127.0.0.1", live.port), 30) as connection:
            connection.sendall(head("Content-Length: 1000"))
            assert answer_of(connection)[0] == 429
        assert live.send("GET", "/health/live").status == 200
        assert gauge(live, 'rejects_total{reason="queue_full"}') == 2
        model.gate.set()
        assert [answer.status for answer in clients.wait()] == [200] * 3, "what was accepted is not lost"
        assert live.send("POST", "/v1/score", request()).status == 200, "the slots are free again"


def test_a_batch_takes_as_many_slots_as_it_has_items(models: ScorerPool) -> None:
    with held(models, queue_size=3, max_items=3) as (live, model):
        clients = Clients(live)
        clients.send(1)
        eventually(model.entered.is_set)
        refused = live.send("POST", "/v1/score/batch", {"items": [request()] * 3})
        assert (refused.status, refused.json()["code"]) == (429, "queue_full")
        model.gate.set()
        assert live.send("POST", "/v1/score/batch", {"items": [request()] * 2}).status == 200
        clients.wait()


def test_a_request_beyond_its_deadline_is_answered_and_not_computed(models: ScorerPool) -> None:
    with held(models, request_seconds=1.0) as (live, model):
        clients = Clients(live)
        clients.send(1)
        eventually(model.entered.is_set)
        clients.send(2)
        answers = clients.wait()
        assert [(answer.status, answer.json()["code"]) for answer in answers] == [(504, "deadline")] * 3
        model.gate.set()
        eventually(lambda: model.scored > 0)
        assert live.send("POST", "/v1/score", request()).status == 200
        assert model.scored == 2, "the first, which the model had begun, and the last"


def test_what_clients_leave_behind_is_not_computed(models: ScorerPool) -> None:
    body = json.dumps(request()).encode()
    with held(models) as (live, model):
        clients = Clients(live)
        clients.send(1)
        eventually(model.entered.is_set)
        connections = [socket.create_connection(("127.0.0.1", live.port), 30) for _ in range(10)]
        for connection in connections:
            connection.sendall(head(f"Content-Length: {len(body)}") + body)
        eventually(lambda: gauge(live, "queue_depth") == 10)
        for connection in connections[:9]:
            connection.close()
        eventually(lambda: gauge(live, "in_flight") == 2)
        assert gauge(live, "queue_depth") == 1
        model.gate.set()
        assert answer_of(connections[9])[0] == 200
        connections[9].close()
        assert [answer.status for answer in clients.wait()] == [200]
        assert model.scored == 2
        assert gauge(live, 'dropped_total{reason="client_gone"}') == 9


def test_a_client_that_sends_half_a_body_and_leaves_costs_nothing(small: Live) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", small.port), 30) as connection:
            connection.sendall(head("Content-Length: 1000") + b"{")
    eventually(lambda: gauge(small, "in_flight") == 0)
    assert small.send("GET", "/health/ready").status == 200


def test_a_body_that_does_not_arrive_in_time_is_given_up(models: ScorerPool) -> None:
    with serving(app_of(models, request_seconds=0.5)) as live:
        with socket.create_connection(("127.0.0.1", live.port), 30) as connection:
            connection.sendall(head("Content-Length: 1000") + b"{")
            status, problem = answer_of(connection)
        assert (status, problem["code"]) == (408, "body_slow")
        assert gauge(live, "in_flight") == 0


def test_a_full_collection_does_not_stop_the_service_to_walk_the_model(models: ScorerPool) -> None:
    gc.unfreeze()
    with serving(app_of(models)) as live:
        live.wait_until_ready()
        assert gc.get_freeze_count() > len(gc.get_objects())


def test_a_dead_worker_is_not_ready(models: ScorerPool) -> None:
    class Dying(Held):
        def score(self, contrast: str, rows: Sequence[EncodedSample]) -> list[Result]:
            raise SystemExit(1)

    with serving(app_of(Dying(models))) as live:  # type: ignore[arg-type]  # it does what the model does
        answer = live.send("POST", "/v1/score", request())
        assert (answer.status, answer.json()["code"]) == (503, "not_ready")
        ready = live.send("GET", "/health/ready")
        assert (ready.status, ready.json()["code"]) == (503, "not_ready")
        assert "SystemExit" in ready.json()["detail"]
        assert ready.headers["retry-after"] == "5"
        assert live.send("GET", "/health/live").status == 200
        assert gauge(live, "ready ") == 0
        later = live.send("POST", "/v1/score", request())
        assert later.status == 503


def test_a_task_that_its_server_cancels_takes_its_work_back(models: ScorerPool) -> None:
    """Ray Serve cancels the task of a client that left, where uvicorn sends a message."""
    model = Held(models)
    app = app_of(model)  # type: ignore[arg-type]  # it does what the model does
    service = app.state.service
    body = json.dumps(request()).encode()

    async def receive_once() -> Message:
        if sent:
            await asyncio.Event().wait()
        sent.append(1)
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        raise AssertionError("nobody is there to be answered")

    async def scenario() -> None:
        service.start()
        while service.batcher.why_not_ready() is not None:
            await asyncio.sleep(0.01)
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/v1/score",
            "raw_path": b"/v1/score",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "server": ("x", 80),
            "headers": [(b"content-type", b"application/json")],
        }
        blocker = service.batcher.submit(models._checked[0], "blank", 1e12)
        while not model.entered.is_set():
            await asyncio.sleep(0.01)
        task = asyncio.ensure_future(app(scope, receive_once, send))
        while service.batcher.depth != 1:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert service.batcher.depth == 0
        assert service.admission.in_flight == 0
        model.gate.set()
        await asyncio.wrap_future(blocker)
        await service.stop()

    sent: list[int] = []
    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert model.scored == 1
