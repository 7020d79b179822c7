"""Limits below HTTP: what a client may send and hold before any request of its own is complete.

Nobody has shown a key yet, so everything here is bounded: the line and headers of a request in bytes and seconds, its
body in seconds, an unread response in seconds, and connections in number. uvicorn has no option for any of these with
its faster parser. With h11 it could limit the bytes of headers, but nothing else, and h11 takes about thirty times as
long for a body in chunks of one byte: 0.4 s of the event loop for 256 KiB, an attack of its own.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.metrics import Metrics
from service.problems import MEDIA_TYPE, ProblemError, standard_headers

_PIPELINED: Final = 8
"""Requests of one connection that may wait while an earlier one is answered. One read of 256 KiB can hold 10,000."""
_LINGER_SECONDS: Final = 1.0
_LINGER_BYTES: Final = 2**20
"""How long a refused client may go on sending, and how much. If its bytes met a closed socket, it might not see the
refusal."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one server accepts from clients it does not know.

    Attributes:
        connections: Connections open at once.
        head_bytes: Size of a request's line and headers, of its trailers, and of chunk framing beyond the size of the
            body itself.
        head_seconds: Time from the first byte of a request (for the first one: from the connection) to the end of its
            headers.
        body_seconds: Time from there to the end of the body, and time without progress of an unread response.
    """

    connections: int
    head_bytes: int
    head_seconds: float
    body_seconds: float


class _RefusedError(Exception):
    """Stops the parser."""


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol within :class:`ConnectionLimits`.

    Beyond ``connections``, the connection that has waited longest for a request makes room for the new one: it is idle,
    or an attacker's. If there is none, one whose body is incomplete or whose response is not read does. If the service
    is at work for all of them, the new one gets 503. Every refusal is a problem by RFC 9457, after which the connection
    closes. Beyond 8 pipelined requests, the connection closes after their responses, and clients send the rest again
    by RFC 9112, 9.3.2.
    """

    limits: ClassVar[ConnectionLimits]
    metrics: ClassVar[Metrics]

    _timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _waiting_since: float = 0.0
    _begun: bool = False
    """A request has begun and is not complete."""
    _head_complete: bool = False
    _head_bytes: int = 0
    """Of this request: its target, headers and trailers."""
    _unparsed: int = 0
    """Bytes received that are no part of a complete head or of a body: it bounds what the parser itself collects. The
    rest of a read that completes a head is not counted, which is 256 KiB at most."""
    _refusal: ProblemError | None = None
    _answers_the_rest: bool = False
    """More requests were pipelined than may wait."""
    _discards: bool = False

    # connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._waiting_since = self.loop.time()
        if len(self.connections) > self.limits.connections and not self._make_room():
            self.metrics.rejects.labels("connections").inc()
            self._refuse(
                ProblemError(
                    503,
                    "too_many_connections",
                    f"all of max_connections={self.limits.connections} connections are being answered; try again later",
                    {"Retry-After": "1"},
                )
            )
            return
        self._start(self.limits.head_seconds, self._head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        self._stop_writing()
        super().connection_lost(exc)

    def _make_room(self) -> bool:
        others = [one for one in self.connections if isinstance(one, GuardedProtocol) and one is not self]
        waiting = [one for one in others if one._waits_for_client()]
        if not waiting:
            return False
        oldest = min(waiting, key=lambda one: (one._is_answering(), one._waiting_since))
        self.metrics.rejects.labels("connection_idle").inc()
        self.connections.discard(oldest)
        oldest._end()
        return True

    def _is_answering(self) -> bool:
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    def _waits_for_client(self) -> bool:
        if not self._is_answering() or self.flow.write_paused:
            return True
        return not self.pipeline and bool(self.cycle.more_body)

    def _end(self) -> None:
        # close() would wait for a client that does not read what is still unsent.
        (self.transport.abort if self.transport.get_write_buffer_size() else self.transport.close)()

    # bytes

    def data_received(self, data: bytes) -> None:
        if self._discards:
            self._unparsed += len(data)
            if self._unparsed > _LINGER_BYTES:
                self.transport.abort()
            return
        if self._timer is None and not self._begun:
            self._start(self.limits.head_seconds, self._head_late)
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > self.limits.head_bytes and not self._discards:
            self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun, self._head_complete, self._head_bytes = True, False, 0
        if self._timer is None:
            self._start(self.limits.head_seconds, self._head_late)

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)  # the colon, a space and the end of the line
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.limits.head_bytes:
            self._refusal = self._too_large()
            raise _RefusedError

    def on_headers_complete(self) -> None:
        if len(self.pipeline) == _PIPELINED:
            self._answers_the_rest = True
            raise _RefusedError
        upgrades = self.parser.should_upgrade()
        if upgrades and any(_announces_body(*header) for header in self.headers):
            # The parser would take the body for the next request.
            self._refusal = ProblemError(
                400,
                "upgrade_with_body",
                "the request has a body and asks for another protocol, which is not offered; send it as HTTP/1.1, "
                "without the header Upgrade",
            )
            raise _RefusedError
        super().on_headers_complete()
        if upgrades:
            self._answer_and_close()
        self._head_complete, self._unparsed = True, 0
        # One second more than the application's own limit, whose answer says why.
        self._start(self.limits.body_seconds + 1, self._body_late)

    def on_body(self, body: bytes) -> None:
        # Framing may cost as much as what it frames: enough for every client but one that sends single bytes.
        self._unparsed = max(0, self._unparsed - 2 * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._stop()
        self._begun, self._unparsed = False, 0

    def on_response_complete(self) -> None:
        self._waiting_since = self.loop.time()
        super().on_response_complete()

    def _too_large(self) -> ProblemError:
        self.metrics.rejects.labels("head_too_large").inc()
        part, remedy = (
            ("framing of the body's chunks and its trailers take", "send larger chunks or fewer trailers")
            if self._begun and self._head_complete
            else ("request's line and headers take", "shorten the URL, or send fewer or shorter headers")
        )
        return ProblemError(
            431,
            "head_too_large",
            f"the {part} more than max_head_bytes={self.limits.head_bytes}; {remedy}",
        )

    # time

    def _start(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop()
        self._timer = self.loop.call_later(seconds, then)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_late(self) -> None:
        if self._is_answering():  # the next request waits in the pipeline, and is not read meanwhile
            self._start(self.limits.head_seconds, self._head_late)
        elif not self._begun:  # a browser opens connections in advance: not an error
            self._end()
        else:
            self.metrics.rejects.labels("head_slow").inc()
            self._refuse(
                ProblemError(
                    408,
                    "head_slow",
                    f"the request's line and headers did not arrive within head_seconds={self.limits.head_seconds:g}; "
                    "send them faster",
                )
            )

    def _body_late(self) -> None:
        if self._is_answering():  # with 408, if the application wanted the body
            self._start(_LINGER_SECONDS, self._body_late)
        else:  # answered without its body, as 401 is
            self._end()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        self._stop_writing()
        super().resume_writing()

    def _watch_writing(self) -> None:
        unsent = self.transport.get_write_buffer_size()

        def look_again() -> None:
            if self.transport.get_write_buffer_size() < unsent:
                self._watch_writing()
            else:
                self.metrics.rejects.labels("unread").inc()
                self.transport.abort()

        self._write_timer = self.loop.call_later(self.limits.body_seconds, look_again)

    def _stop_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    # refusals

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing, where uvicorn advises to install a library for WebSockets."""

    def _answer_and_close(self) -> None:
        """Answer what has been read, and read no more."""
        self._stop()
        self._discards = True
        self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refuses, or what it was stopped for; called by uvicorn."""
        if self._answers_the_rest:
            self.metrics.rejects.labels("pipeline").inc()
            self._answer_and_close()
            return
        self._refuse(self._refusal or ProblemError(400, "http_invalid", "the request is not valid HTTP/1.1"))

    def _refuse(self, problem: ProblemError) -> None:
        self._discards = True
        self._unset_keepalive_if_required()
        self._start(_LINGER_SECONDS, self.transport.abort)
        if self._is_answering():
            if self.pipeline or self.cycle.response_started or not (self._begun and self._head_complete):
                self.transport.abort()  # the client would take the refusal for the answer, or for a part of it
                return
            # The application is told that its client has gone, and what it still sends is dropped.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(_rendered(problem))
        if self.transport.can_write_eof():
            self.transport.write_eof()


def guarded(limits: ConnectionLimits, metrics: Metrics) -> type[GuardedProtocol]:
    """Return the protocol class for ``uvicorn.Config(http=…)``, which creates its instances itself."""
    return type("GuardedProtocol", (GuardedProtocol,), {"limits": limits, "metrics": metrics})


def _announces_body(name: bytes, value: bytes) -> bool:
    return name == b"transfer-encoding" or (name == b"content-length" and value != b"0")


def _rendered(problem: ProblemError) -> bytes:
    """Return a whole response: no application runs that could write it."""
    request_id = uuid.uuid4().hex
    body = json.dumps(problem.document(request_id)).encode()
    headers = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        **standard_headers(request_id),
        "Connection": "close",
        **problem.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return STATUS_LINE[problem.status] + lines.encode() + b"\r\n" + body
