"""Export progress as Prometheus metrics through Ray: every node, the driver's included, runs one of its exporters."""

from __future__ import annotations

from typing import Any, Final

from pipelines.progress.snapshot import Snapshot

_GAUGES: Final = {
    "rows": "Rows of the dataset.",
    "rows_done": "Rows that are committed.",
    "rows_failed_here": "Rows that failed, of those scored by this process's workers.",
    "rows_text_only_here": "Rows without an image, of those kept by this process's workers.",
    "tokens_here": "Tokens scored by this process's workers.",
    "rows_per_second": "Rows scored per second.",
    "tokens_per_second": "Tokens scored per second.",
    "seconds_left": "Estimated seconds until the last row is scored.",
    "actors": "Actors that should hold the model.",
    "actors_alive": "Actors that have loaded the model.",
    "encoders": "Processes that read and encode rows for the actors.",
}
_BUSY: Final = "Share of its workers' time that a stage takes; the stage with the largest share limits the run."


class RayMetrics:
    """See :class:`pipelines.progress.watch.Display`. Ray exports the metrics as ``ray_tokensight_…``.

    Args:
        output: value of the tag ``output``, which distinguishes runs.
    """

    def __init__(self, output: str) -> None:
        self._tags = {"output": output}
        self._gauges: dict[str, Any] = {}

    def begin(self, snapshot: Snapshot) -> None:
        """Do nothing: Ray has not started yet."""

    def add(self, snapshot: Snapshot) -> None:
        """Do nothing: the metrics are set at the next tick, since Ray collects them no more often."""

    def tick(self, snapshot: Snapshot) -> None:
        import ray

        if not ray.is_initialized():
            return
        values = snapshot.to_dict()
        for name in _GAUGES:
            if values[name] is not None:
                self._gauge(name).set(values[name], tags=self._tags)
        for stage, share in values["busy"].items():
            self._gauge("busy").set(share, tags={**self._tags, "stage": stage})

    def end(self, snapshot: Snapshot) -> None:
        self.tick(snapshot)

    def _gauge(self, name: str) -> Any:
        from ray.util.metrics import Gauge

        if name not in self._gauges:
            keys = ("output", "stage") if name == "busy" else ("output",)
            self._gauges[name] = Gauge(f"tokensight_{name}", description=_GAUGES.get(name, _BUSY), tag_keys=keys)
        return self._gauges[name]
