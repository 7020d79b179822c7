"""The metrics served at /metrics for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Metrics in a separate registry for each application in a process.

    Attributes:
        requests: Answered requests, by route (the template, never the path sent by the client), method and status.
        latency: Seconds from the arrival of a request to the end of its response, by route.
        queue_depth: Encoded samples waiting for the model.
        in_flight: Samples accepted and not yet answered.
        ready: 1 if /health/ready answers 200, otherwise 0.
        queue_wait: Seconds from encoding to the start of the batch.
        batch_rows, batch_tokens: Rows and tokens per batch.
        tokens: Scored tokens.
        engine_seconds: Seconds spent in the model.
        rejects: Rejected requests, by reason.
        dropped: Accepted samples that were never scored, by reason: client_gone, deadline.
        failures: Samples that could not be scored, by code.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Answered requests.", "route", "method", "status")
        self.latency = Histogram(
            "tokensight_request_seconds",
            "Seconds from arrival to response.",
            ["route"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.queue_depth = self._gauge("queue_depth", "Samples waiting for the model.")
        self.in_flight = self._gauge("in_flight", "Samples accepted and not yet answered.")
        self.ready = self._gauge("ready", "1 if the service is ready.")
        self.queue_wait = self._histogram(
            "queue_wait_seconds", "Seconds from encoding to the start of the batch.", _SECONDS
        )
        self.batch_rows = self._histogram("batch_rows", "Samples per batch.", _ROWS)
        self.batch_tokens = self._histogram("batch_tokens", "Tokens per batch.", tuple(2**k for k in range(6, 16)))
        self.tokens = self._counter("tokens", "Scored tokens.")
        self.engine_seconds = self._counter("engine_seconds", "Seconds spent in the model.")
        self.rejects = self._counter("rejects", "Rejected requests.", "reason")
        self.dropped = self._counter("dropped", "Accepted samples that were never scored.", "reason")
        self.failures = self._counter("failures", "Samples that could not be scored.", "code")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"tokensight_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"tokensight_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"tokensight_{name}", text, registry=self.registry, buckets=buckets)
