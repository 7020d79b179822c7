"""The API tells and takes a method by its record alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from scorer.weights import METHODS
from service import schemas
from service.scoring import MAX_WINDOW
from tests.service.helpers import request
from tests.toy_method import TOY, plant

RAW = {"logit_gap": [0.0, 1.0], "logprob_clean": [-1.0, -2.0], "logprob_contrast": [-3.0, -3.0]}


def enumerated(client: TestClient) -> list[list[str]]:
    """The methods that a fresh description lists, at every place that has one."""
    app = client.app
    assert isinstance(app, FastAPI)
    app.openapi_schema = None
    described = client.get("/openapi.json").json()["components"]["schemas"]
    app.openapi_schema = None
    places = [(name, "method") for name in ("ScoreRequest", "ScoringOptions", "WeightsRequest")]
    places += [(name, "method") for name in ("ScoreResponse", "WeightsResponse")]
    places += [("MethodOut", "name"), ("ModelsResponse", "default_method")]
    return [described[schema]["properties"][field]["enum"] for schema, field in places]


def test_an_unknown_method_is_refused_with_those_that_are_known(client: TestClient) -> None:
    for path, body in (("/v1/score", request(method="toy")), ("/v1/weights", {**RAW, "method": "toy"})):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert (
            "Input should be 'cal', 'cal-logprob', 'prior', 'vig', 'vig-row', 'top-tokens', 'vppo', 'pgpo', 'tpo' or "
            "'grounded'" in answer.text
        )


def test_the_description_lists_the_methods(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(found == list(METHODS) for found in enumerated(client))
    plant(monkeypatch)
    assert all(found == [*METHODS] and "toy" in found for found in enumerated(client))


def test_models_tells_the_whole_record(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    document = client.get("/v1/models").json()
    schemas.ModelsResponse.model_validate(document)
    told = {method["name"]: method for method in document["methods"]}
    assert list(told) == list(METHODS)
    for name, record in METHODS.items():
        found = told[name]
        plain = ("label", "words", "formula", "paper", "arxiv", "binary", "whole_row")
        assert {field: found[field] for field in plain} == {field: getattr(record, field) for field in plain}
        assert found["columns"] == list(record.columns)
        assert found["if_given"] == list(record.if_given)
        assert found["of_dataset"] == list(record.of_dataset)
        assert found["ordered"] == [list(pair) for pair in record.ordered]
        assert found["bounds"] == (None if record.bounds is None else list(record.bounds))
        assert list(found["params"]) == [parameter.name for parameter in record.parameters]
        assert set(found) == set(schemas.MethodOut.model_fields)
    assert told["toy"]["params"]["power"] == {
        "name": "power",
        "label": "times",
        "meaning": "what the probability is multiplied by",
        "type": "float",
        "default": 2.0,
        "slider": {"minimum": 0.25, "maximum": 4, "step": 0.25, "start": None},
        "choices": {},
        "unit": "",
        "minimum": None,
        "exclusive_minimum": 0,
        "maximum": None,
        "exclusive_maximum": 8,
        "odd": False,
        "nullable": False,
        "overrides": None,
    }


def test_a_planted_method_is_applied(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    chosen: dict[str, Any] = {"method": "toy", "method_params": {"power": 3, "cap": 1}}
    answer = client.post("/v1/weights", json={**RAW, **chosen}).json()
    assert answer["method_params"] == {"power": 3.0, "cap": 1.0}
    np.testing.assert_allclose(answer["weights"], [1.0, 3 * np.exp(-2)], rtol=1e-6)
    scored = client.post("/v1/score", json=request(**chosen)).json()
    clean = [token["logprob_clean"] for token in scored["tokens"]]
    found = [token["weight"] for token in scored["tokens"]]
    np.testing.assert_allclose(found, np.minimum(3 * np.exp(clean), 1), rtol=1e-5)
    refused = client.post("/v1/weights", json={**RAW, "method": "toy", "method_params": {"power": 8}})
    assert (refused.status_code, refused.json()["code"]) == (422, "method_invalid")
    assert "power is 8.0; it must lie in (0, 8)" in refused.json()["detail"]


def test_what_counts_tokens_is_bounded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the parameter is called."""
    power = replace(TOY.parameters[0], unit="tokens", exclusive_maximum=None)
    plant(monkeypatch, replace(TOY, parameters=(power, TOY.parameters[1])))
    for value, status in ((MAX_WINDOW, 200), (MAX_WINDOW + 1, 422)):
        answer = client.post("/v1/weights", json={**RAW, "method": "toy", "method_params": {"power": value}})
        assert answer.status_code == status
    assert f"power is {MAX_WINDOW + 1}.0; over HTTP it is at most {MAX_WINDOW} tokens" in answer.json()["detail"]
