"""What strangers may send and hold before a request of theirs is complete, over raw sockets."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from service.scorer_pool import ScorerPool
from tests.service.held import answer_of, gauge, head, held
from tests.service.helpers import KEY, Live, app_of, eventually, request, serving

GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
HEAD_BYTES = 4096


@pytest.fixture(scope="module")
def strict(models: ScorerPool) -> Iterator[Live]:
    """Small limits, and a key that the clients here do not have."""
    with serving(
        app_of(models, api_keys=(KEY,), max_head_bytes=HEAD_BYTES, head_seconds=0.5, request_seconds=1.0)
    ) as live:
        yield live


@contextmanager
def connected(live: Live) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", live.port), 10) as connection:
        yield connection


def sent(connection: socket.socket, piece: bytes, most: int) -> int:
    """Send ``piece`` again and again, until the server wants no more or ``most`` bytes have gone: how many have."""
    connection.settimeout(5)
    count = 0
    with suppress(ConnectionError):
        while count < most:
            count += connection.send(piece)
    return count


def closed(connection: socket.socket) -> bool:
    """Whether the server closes the connection; what it still sends is read."""
    connection.settimeout(10)
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def refusal(connection: socket.socket, status: int, code: str) -> dict[str, Any]:
    found, problem = answer_of(connection)
    assert (found, problem["status"], problem["code"]) == (status, status, code)
    assert closed(connection)
    return problem


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(GET + b"X-Long: " + b"x" * HEAD_BYTES, id="one header"),
        pytest.param(GET + b"X: y\r\n" * HEAD_BYTES, id="many headers"),
        pytest.param(GET + b"X: " + b"x" * HEAD_BYTES + b"\r\n\r\n", id="a complete head"),
        pytest.param(b"GET /" + b"x" * HEAD_BYTES, id="the path"),
        pytest.param(b"GET /health/live?" + b"x" * HEAD_BYTES + b" HTTP/1.1\r\n\r\n", id="the query"),
        pytest.param(b"\r\n" * HEAD_BYTES, id="nothing but line ends"),
        pytest.param(b"POST /v1/weights HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 4096,
                     id="trailers after an answer"),
    ],
)  # fmt: skip
def test_a_head_beyond_its_limit_is_refused(strict: Live, start: bytes) -> None:
    with connected(strict) as connection:
        connection.sendall(start)
        if start.startswith(b"POST"):  # 401 does not wait for the body; what follows ends the connection
            assert closed(connection)
            return
        problem = refusal(connection, 431, "head_too_large")
    assert f"max_head_bytes={HEAD_BYTES}" in problem["detail"]


def test_a_head_at_its_limit_is_read(strict: Live) -> None:
    """Negative control: one byte less is accepted. The target, names and values count, and 4 bytes for each header."""
    used = len("/health/live") + len("Host") + len("x") + 4 + len("X") + 4
    for size, status in ((HEAD_BYTES - used, 200), (HEAD_BYTES - used + 1, 431)):
        with connected(strict) as connection:
            connection.sendall(GET + b"X: " + b"y" * size + b"\r\n\r\n")
            assert answer_of(connection)[0] == status


@pytest.mark.parametrize("piece", [b"x" * 65536, b"X: y\r\n" * 10_000, b"X" * 500 + b": y\r\n"])
def test_what_headers_take_is_bounded(strict: Live, piece: bytes) -> None:
    """Without the limit, all 64 MiB are taken."""
    with connected(strict) as connection:
        connection.sendall(GET)
        assert sent(connection, piece, 64 * 2**20) < 64 * 2**20


def test_trailers_and_framing_of_a_body_are_bounded(models: ScorerPool) -> None:
    start = head("Transfer-Encoding: chunked")
    with serving(app_of(models, max_head_bytes=HEAD_BYTES)) as live:
        for rest in (
            b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * HEAD_BYTES,  # many trailers
            b"2\r\n{}\r\n0\r\nX: " + b"y" * 2 * HEAD_BYTES,  # one that does not end
            b"2;" + b"x" * 2 * HEAD_BYTES,  # an extension of a chunk
            b"1\r\n \r\n" * HEAD_BYTES,  # six bytes on the wire for one of the body
        ):
            with connected(live) as connection:
                connection.sendall(start)
                time.sleep(0.05)
                connection.sendall(rest)
                refusal(connection, 431, "head_too_large")
        # Negative control: chunks of 16 bytes, more of them, and a trailer.
        with connected(live) as connection:
            connection.sendall(start + (b"10\r\n" + b" " * 16 + b"\r\n") * 3 * HEAD_BYTES + b"0\r\nX: y\r\n\r\n")
            assert answer_of(connection)[1]["code"] == "json_invalid"


def test_a_head_that_does_not_arrive_is_given_up(strict: Live) -> None:
    for start in (GET, b"GET", GET + b"X: y"):
        with connected(strict) as connection:
            connection.sendall(start)
            problem = refusal(connection, 408, "head_slow")
            assert "head_seconds=0.5" in problem["detail"]


def test_bytes_now_and_then_gain_no_time(strict: Live) -> None:
    """One header each 0.1 s, as slowloris sends them."""
    with connected(strict) as connection:
        connection.sendall(GET)
        began = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() < began + 20:
                connection.sendall(b"X: y\r\n")
                time.sleep(0.1)
        assert time.monotonic() < began + 10


def test_the_second_request_of_a_connection_has_as_long(strict: Live) -> None:
    with connected(strict) as connection:
        connection.sendall(GET + b"\r\n")
        assert answer_of(connection)[0] == 200
        time.sleep(0.8)  # idle for longer than a head may take
        connection.sendall(GET)
        time.sleep(0.1)
        connection.sendall(b"\r\n")
        assert answer_of(connection)[0] == 200
        connection.sendall(GET)
        refusal(connection, 408, "head_slow")


def test_a_connection_without_a_request_is_closed(strict: Live) -> None:
    with connected(strict) as connection:
        began = time.monotonic()
        assert connection.recv(1) == b""
        assert 0.3 < time.monotonic() - began < 8


def test_a_body_behind_an_answer_is_not_read_for_ever(strict: Live) -> None:
    """401 is said at once, and the client goes on sending."""
    with connected(strict) as connection:
        connection.sendall(head(f"Content-Length: {10**9}"))
        status, problem = answer_of(connection)
        assert (status, problem["code"]) == (401, "unauthorized")
        began = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() < began + 20:
                connection.sendall(b" ")
                time.sleep(0.1)
        assert time.monotonic() < began + 10


def test_what_is_not_http_is_a_problem_too(strict: Live) -> None:
    with connected(strict) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        refusal(connection, 400, "http_invalid")


def test_a_response_that_nobody_reads_is_given_up(models: ScorerPool) -> None:
    """The answer is larger than the sockets' buffers: the rest would wait in memory, for ever."""
    body = json.dumps({"logit_gap": [0.125] * 65_000, "logprob_clean": [-0.125] * 65_000,
                       "logprob_contrast": [-0.25] * 65_000}).encode()  # fmt: skip
    start = head(f"Content-Length: {len(body)}").replace(b"/v1/score", b"/v1/weights")
    with serving(app_of(models, request_seconds=1.0)) as live, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", live.port))
        with suppress(ConnectionError):
            for _ in range(40):
                connection.sendall(start + body)
        eventually(lambda: gauge(live, 'rejects_total{reason="unread"}') == 1)


def test_connections_are_bounded_and_the_longest_idle_makes_room(models: ScorerPool) -> None:
    """As many half-sent requests as connections are allowed, and more: a client that sends a whole one is answered."""
    with serving(app_of(models, max_connections=20, head_seconds=60.0)) as live, ExitStack() as stack:
        connections = [stack.enter_context(connected(live)) for _ in range(200)]
        for connection in connections:
            with suppress(ConnectionError):
                connection.sendall(GET)
        assert live.send("GET", "/health/live").status == 200
        time.sleep(0.2)
        still_open = 0
        for connection in connections:
            connection.setblocking(False)
            try:
                connection.recv(1)
            except BlockingIOError:
                still_open += 1
            except ConnectionError:
                pass
        assert 0 < still_open <= 20
        assert gauge(live, 'rejects_total{reason="connection_idle"}') >= 180


def test_connections_that_are_being_answered_are_not_closed_for_new_ones(models: ScorerPool) -> None:
    body = json.dumps(request()).encode()
    with held(models, max_connections=3) as (live, model), ExitStack() as stack:
        busy = [stack.enter_context(connected(live)) for _ in range(3)]
        for connection in busy:
            connection.sendall(head(f"Content-Length: {len(body)}") + body)
        assert model.entered.wait(60)
        time.sleep(0.3)
        with connected(live) as connection:
            problem = refusal(connection, 503, "too_many_connections")
            assert "max_connections=3" in problem["detail"]
        model.gate.set()
        for connection in busy:
            assert answer_of(connection)[0] == 200
        assert live.send("GET", "/health/live").status == 200, "they are idle now, and make room"


def test_bodies_that_do_not_arrive_make_room_after_idle_connections(models: ScorerPool) -> None:
    """Otherwise as many of them as connections are allowed would shut everybody out for request_seconds."""
    with serving(app_of(models, max_connections=3)) as live, ExitStack() as stack:
        slow = [stack.enter_context(connected(live)) for _ in range(2)]
        for connection in slow:
            connection.sendall(head("Content-Length: 2").replace(b"/v1/score", b"/v1/weights"))
        idle = stack.enter_context(connected(live))
        time.sleep(0.3)
        assert live.send("GET", "/health/live").status == 200
        assert closed(idle), "the idle one is newer, and goes first"
        for _ in range(3):
            slow.append(stack.enter_context(connected(live)))
            slow[-1].sendall(head("Content-Length: 2"))
        time.sleep(0.3)
        assert live.send("GET", "/health/live").status == 200
        assert closed(slow[0])
        slow[-1].sendall(b"{}")
        assert answer_of(slow[-1])[0] == 422, "the newest is answered"


def test_responses_that_nobody_reads_make_room(models: ScorerPool) -> None:
    """They would be given up after request_seconds only, and never if a few bytes were read now and then."""
    with serving(app_of(models, max_connections=2)) as live, ExitStack() as stack:
        for _ in range(2):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(10)
            connection.connect(("127.0.0.1", live.port))
            connection.sendall(b"GET /reference/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        time.sleep(0.5)
        assert live.send("GET", "/health/live").status == 200


def read_to_the_end(connection: socket.socket, seconds: float = 5.0) -> tuple[bytes, bool]:
    """What the server sends, and whether it has closed the connection."""
    connection.settimeout(seconds)
    data = b""
    with suppress(TimeoutError):
        while piece := connection.recv(65536):
            data += piece
        return data, True
    return data, False


def test_pipelined_requests_are_bounded(live: Live) -> None:
    """Without a bound, one read of 256 KiB makes 10,000 requests, and each response lets in another such read: in ten
    seconds, ten connections took 300 MB, and other clients waited for 20 s."""
    one = GET + b"\r\n"
    with connected(live) as connection:
        connection.sendall(one * 2000)
        data, ended = read_to_the_end(connection)
        assert ended
        assert data.count(b"HTTP/1.1 200 OK") == 9, "that being answered, and 8 that wait"
        assert data.count(b"connection: close") == 1
        assert data.endswith(b'{"status":"live"}')
    with connected(live) as connection:  # negative control
        connection.sendall(one * 9)
        data, ended = read_to_the_end(connection, 1.0)
        assert (data.count(b"HTTP/1.1 200 OK"), ended) == (9, False)
    assert gauge(live, 'rejects_total{reason="pipeline"}') == 1


@pytest.mark.parametrize("framing", ["Content-Length: 36", "Transfer-Encoding: chunked"])
def test_a_body_behind_an_upgrade_is_not_taken_for_a_request(live: Live, framing: str) -> None:
    """The parser ends at the headers of a request that asks for an upgrade, whatever its body."""
    with connected(live) as connection:
        connection.sendall(head(framing, "Connection: Upgrade", "Upgrade: h2c"))
        time.sleep(0.2)
        with suppress(ConnectionError):
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        problem = refusal(connection, 400, "upgrade_with_body")
        assert "without the header Upgrade" in problem["detail"]


def test_an_upgrade_is_ignored_and_ends_the_connection(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    """curl --http2 and Java's client ask for one. What follows would belong to the other protocol."""
    for protocol in (b"h2c", b"websocket"):
        with connected(live) as connection:
            asking = GET + b"Connection: Upgrade\r\nContent-Length: 0\r\nUpgrade: " + protocol + b"\r\n\r\n"
            connection.sendall(asking + GET + b"\r\n")
            data, ended = read_to_the_end(connection)
        assert ended
        assert data.count(b"HTTP/1.1 200 OK") == 1
        assert b"connection: close" in data
    assert not [one for one in caplog.records if "WebSocket" in one.message]
