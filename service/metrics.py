"""What Prometheus reads at /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """One registry per application, so that several in one process do not mix.

    Attributes:
        requests: answered requests, by route (the template, never the client's path), method and status.
        latency: seconds from a request's arrival to its answer's end, by route.
        queue_depth: samples encoded and waiting for the model.
        in_flight: samples accepted and not yet answered.
        ready: 1 where /health/ready answers 200.
        queue_wait: seconds from encoded to the start of the batch.
        batch_rows, batch_tokens: size of the batches.
        tokens: scored tokens.
        engine_seconds: time in the model.
        rejects: requests that were not taken in, by reason.
        dropped: accepted samples that were not computed, by reason: client_gone, deadline.
        failures: samples that could not be scored, by code.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Answered requests.", "route", "method", "status")
        self.latency = Histogram(
            "tokensight_request_seconds", "Arrival to answer.", ["route"], registry=self.registry, buckets=_SECONDS
        )
        self.queue_depth = self._gauge("queue_depth", "Samples that wait for the model.")
        self.in_flight = self._gauge("in_flight", "Samples accepted and not yet answered.")
        self.ready = self._gauge("ready", "1 where the service is ready.")
        self.queue_wait = self._histogram("queue_wait_seconds", "Encoded to start of batch.", _SECONDS)
        self.batch_rows = self._histogram("batch_rows", "Samples of a batch.", _ROWS)
        self.batch_tokens = self._histogram("batch_tokens", "Tokens of a batch.", tuple(2**k for k in range(6, 16)))
        self.tokens = self._counter("tokens", "Scored tokens.")
        self.engine_seconds = self._counter("engine_seconds", "Time in the model.")
        self.rejects = self._counter("rejects", "Requests not taken in.", "reason")
        self.dropped = self._counter("dropped", "Accepted samples that were not computed.", "reason")
        self.failures = self._counter("failures", "Samples that could not be scored.", "code")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"tokensight_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"tokensight_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"tokensight_{name}", text, registry=self.registry, buckets=buckets)
