"""The metrics as Prometheus gets them, from the exporter of the driver's node."""

from __future__ import annotations

import time
import urllib.request

import pytest

from pipelines.output.tally import Tally
from pipelines.progress.ray_metrics import RayMetrics
from pipelines.progress.snapshot import Snapshot
from pipelines.run.executor import Workers

OUTPUT = "s3://bucket/out"


def scrape() -> dict[str, float]:
    """Samples of :data:`OUTPUT` by name and stage; what earlier jobs told stands there too."""
    import ray

    (node,) = [node for node in ray.nodes() if node["Alive"]]
    with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for line in text.splitlines():
        if line.startswith("ray_tokensight_"):
            name, tags = line.split("{", 1)
            stage = tags.partition('stage="')[2].partition('"')[0]
            if f'output="{OUTPUT}"' in tags:
                found[f"{name} {stage}".strip()] = float(line.rsplit(" ", 1)[1])
    return found


@pytest.mark.usefixtures("ray_cluster")
def test_what_prometheus_is_told() -> None:
    tally = Tally(rows=40, ok=38, tokens=900, sessions={"a": (0.0, 10.0)}, stages={"score": 15.0})
    metrics = RayMetrics(OUTPUT)
    metrics.tick(Snapshot(100, 20, tally, Workers(encoders=4, scorers=2, shared=False, alive=1)))
    deadline, found = time.monotonic() + 60, {}
    while "ray_tokensight_busy score" not in found and time.monotonic() < deadline:
        time.sleep(0.5)
        found = scrape()
    assert found["ray_tokensight_rows"] == 100
    assert found["ray_tokensight_rows_done"] == 60
    assert found["ray_tokensight_rows_failed_here"] == 2
    assert found["ray_tokensight_tokens_per_second"] == 90
    assert found["ray_tokensight_seconds_left"] == 10
    assert (found["ray_tokensight_actors"], found["ray_tokensight_actors_alive"]) == (2, 1)
    assert found["ray_tokensight_busy score"] == 0.75
    assert found["ray_tokensight_busy encode"] == 0


def test_without_ray_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    RayMetrics("out").tick(Snapshot(1, 0, Tally()))
