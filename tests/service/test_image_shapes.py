"""Images of extreme shapes: refused at once, so that others are served; nothing is encoded that nobody waits for."""

from __future__ import annotations

import json
import socket
import threading
import time
import zlib
from typing import Any

import pytest
from PIL import Image

from scorer.types import EncodedSample, Sample
from service import scoring
from service.bodies import RequestImage
from service.pending import DeadlinePassedError
from service.schemas import ScoringOptions
from service.scorer_pool import ScorerPool
from tests.service.held import Clients, gauge, head
from tests.service.helpers import Live, app_of, encoded, eventually, png, request, serving
from tests.service.process import service_process


def column(height: int) -> bytes:
    """A PNG of one column, black: 49 kB for 25 megapixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)

    header = (1).to_bytes(4) + height.to_bytes(4) + bytes([1, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(2 * height), 9))
        + chunk(b"IEND", b"")
    )


def test_columns_of_25_megapixels_do_not_keep_others_waiting() -> None:
    body = {"image": encoded(column(25_000_000)), "text": "A kite."}
    assert len(body["image"]["base64"]) < 70_000
    refused: list[dict[str, Any]] = []
    seconds: list[float] = []
    with service_process("--contrasts", "blank", "--batch-wait-ms", "1") as process:
        live, done = process.wait_until_ready(), threading.Event()
        process.reset_peak()
        before = process.peak_bytes

        def attack() -> None:
            while not done.is_set():
                answer = live.send("POST", "/v1/score", body)
                refused.append({**answer.json(), "status": answer.status})

        attackers = [threading.Thread(target=attack) for _ in range(4)]
        for thread in attackers:
            thread.start()
        try:
            eventually(lambda: len(refused) >= 4)
            for seed in range(20):
                started = time.monotonic()
                assert live.send("POST", "/v1/score", request(seed=seed)).status == 200
                seconds.append(time.monotonic() - started)
        finally:
            done.set()
            for thread in attackers:
                thread.join(60)
        extra = process.peak_bytes - before
    assert {(one["status"], one["code"]) for one in refused} == {(422, "image_shape")}
    assert "1×25000000" in refused[0]["detail"]
    assert max(seconds) < 1.5, seconds
    assert extra < 60 * 2**20


def test_a_side_that_no_picture_has_is_refused_over_http(live: Live) -> None:
    answer = live.send("POST", "/v1/score", {"image": encoded(png(Image.new("1", (140_000, 1)))), "text": "A kite."})
    assert (answer.status, answer.json()["code"]) == (422, "image_shape")


class HeldEncoder:
    """The packaged model, whose encoder waits at a gate; counts what it begins."""

    def __init__(self, models: ScorerPool) -> None:
        self._models = models
        self.gate = threading.Event()
        self.begun = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)

    def encoder(self, contrasts: tuple[str, ...]) -> HeldEncoder:
        return self

    def encode(self, sample: Sample) -> EncodedSample:
        self.begun += 1
        assert self.gate.wait(60)
        return self._models.encoder(("blank",)).encode(sample)


def test_what_clients_leave_behind_is_not_encoded(models: ScorerPool) -> None:
    held, body = HeldEncoder(models), json.dumps(request()).encode()
    with serving(app_of(held, encode_threads=1)) as live:  # type: ignore[arg-type]  # it does what the model does
        clients = Clients(live)
        clients.send(1)
        eventually(lambda: held.begun == 1)
        connections = [socket.create_connection(("127.0.0.1", live.port), 30) for _ in range(5)]
        for connection in connections:
            connection.sendall(head(f"Content-Length: {len(body)}") + body)
        eventually(lambda: gauge(live, "in_flight") == 6)
        for connection in connections:
            connection.close()
        eventually(lambda: gauge(live, "in_flight") == 1)
        held.gate.set()
        assert [answer.status for answer in clients.wait()] == [200]
        assert live.send("POST", "/v1/score", request()).status == 200
    assert held.begun == 2


def test_what_waits_past_its_deadline_is_not_encoded(models: ScorerPool) -> None:
    held = HeldEncoder(models)
    with serving(app_of(held, encode_threads=1, request_seconds=0.5)) as live:  # type: ignore[arg-type]  # as above
        clients = Clients(live)
        clients.send(4)
        assert [answer.status for answer in clients.wait()] == [504] * 4
        held.gate.set()
        assert live.send("POST", "/v1/score", request()).status == 200
    assert held.begun == 2


def test_a_sample_whose_deadline_the_event_loop_missed_is_not_encoded(models: ScorerPool) -> None:
    held, options = HeldEncoder(models), ScoringOptions(text="A kite.")
    image = RequestImage(uploaded=png(Image.new("RGB", (8, 8))))
    held.gate.set()
    with pytest.raises(DeadlinePassedError):
        scoring._encode(held, image, options, ("blank",), time.monotonic() - 1)  # type: ignore[arg-type]  # as above
    assert held.begun == 0
    scoring._encode(held, image, options, ("blank",), time.monotonic() + 60)  # type: ignore[arg-type]  # as above
    assert held.begun == 1
