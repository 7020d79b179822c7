"""The application as Ray Serve replicas: the same answers, one code path."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from scorer import Sample, Scorer
from scorer.mini import MODEL_PATH
from service.serve import ReplicaOptions, app, gpus
from tests.ports import free_ports
from tests.service.helpers import KEY, Live, encoded, picture, request

pytestmark = pytest.mark.usefixtures("ray_cluster")

HEADERS = {"X-API-Key": KEY}


@pytest.fixture(scope="module")
def served(ray_cluster: str) -> Iterator[Live]:
    from ray import serve

    (port,) = free_ports(1)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TOKENSIGHT_API_KEYS", KEY)
        environment.setenv("TOKENSIGHT_CONTRASTS", "blank")
        environment.setenv("TOKENSIGHT_TORCH_THREADS", "1")
        built = app(ReplicaOptions(num_cpus=1))
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(built, name="tokensight", route_prefix="/")
    yield Live(port)
    serve.shutdown()


def test_a_replica_answers_as_the_single_process_does(served: Live) -> None:
    assert served.send("GET", "/health/ready").status == 200
    assert served.send("GET", "/v1/models").status == 401
    assert served.send("GET", "/health/live/../../v1/models").status in (400, 401)
    found = served.send("POST", "/v1/score", request("A red kite."), {**HEADERS, "X-Request-ID": "mine-2"})
    assert (found.status, found.headers["x-request-id"]) == (200, "mine-2")
    (expected,) = Scorer.load(MODEL_PATH).score([Sample.caption("1", picture(), "A red kite.")])
    gaps: list[Any] = [token["logit_gap"] for token in found.json()["tokens"]]
    np.testing.assert_allclose(gaps, expected.logit_gap, rtol=0, atol=1e-4)  # type: ignore[union-attr]  # no failure
    other = served.send("POST", "/v1/score", request("A red kite.", seed=1), HEADERS)
    assert other.json()["tokens"][0]["logit_gap"] != pytest.approx(gaps[0], abs=1e-4)


def test_problems_pass_the_proxy(served: Live) -> None:
    found = served.send("POST", "/v1/score", {"image": encoded(b"none"), "text": "A."}, HEADERS)
    assert (found.status, found.json()["code"]) == (415, "image_format")
    large = served.send("POST", "/v1/score", b" " * (21 * 2**20), {**HEADERS, "Content-Type": "application/json"})
    assert (large.status, json.loads(large.body)["code"]) == (413, "body_too_large")


def test_what_replicas_may_use() -> None:
    assert gpus(ReplicaOptions(), "cpu") == 0
    assert gpus(ReplicaOptions(), "auto") == 0, "this cluster has none"
    assert gpus(ReplicaOptions(), "cuda") == 1
    assert gpus(ReplicaOptions(num_gpus=0.5), "cpu") == 0.5
    with pytest.raises(ValidationError, match="min_replicas=5 exceeds max_replicas=4"):
        ReplicaOptions(min_replicas=5)
    with pytest.raises(ValidationError, match="Extra inputs"):
        ReplicaOptions(replicas=5)  # type: ignore[call-arg]  # what a user may misspell
