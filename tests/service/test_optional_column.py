"""A raw score and a flag that only some engines give are answered over HTTP, and absent where they are not given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from scorer import assembly
from scorer.columns import ASKED, asked_for
from scorer.results import Failure
from service import bodies, routes, schemas
from tests.service.helpers import request
from tests.toy_columns import FLAG, TOY, register
from tests.toy_method import READS_OPTIONAL, plant


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


@pytest.fixture
def giving(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine gives both: twice the gap, where that is known, and whether the token is the first."""
    result = assembly._scores

    def further(*given: Any) -> Any:
        scores = result(*given)
        assert not isinstance(scores, Failure)
        gap = scores.logit_gap.copy() * 2
        gap[-1] = np.nan
        return replace(scores, optional={TOY.name: gap, FLAG.name: np.arange(len(gap)) == 0})

    monkeypatch.setattr(assembly, "_scores", further)


@pytest.mark.usefixtures("giving")
def test_what_the_engine_gives_is_answered(client: TestClient) -> None:
    tokens = client.post("/v1/score", json=request()).json()["tokens"]
    assert [token["toy"] for token in tokens[:-1]] == pytest.approx([token["logit_gap"] * 2 for token in tokens[:-1]])
    assert tokens[-1]["toy"] is None, "undefined is null"
    assert [token["is_toy"] for token in tokens] == [True] + [False] * (len(tokens) - 1)
    only = client.post("/v1/score", json=request(**{"return": ["spans"]})).json()["tokens"][0]
    assert set(only) == {"turn", "start", "end", "is_toy"}


def test_what_it_does_not_give_is_absent(client: TestClient) -> None:
    token = client.post("/v1/score", json=request()).json()["tokens"][0]
    assert "logit_gap" in token and "toy" not in token and "is_toy" not in token


def test_what_only_a_run_is_asked_for_is_not_described() -> None:
    for model in (schemas.token_out(), schemas.weights_request()):
        assert not {column.name for column in asked_for(ASKED)} & set(model.model_fields)


def test_the_description_has_it() -> None:
    token, asked = schemas.token_out().model_fields, schemas.weights_request().model_fields
    assert token["toy"].description == f"raw: {TOY.meaning}"
    assert token["is_toy"].description == f"spans: {FLAG.meaning}"
    assert not asked["toy"].is_required() and asked["logit_gap"].is_required()
    assert not asked["is_toy"].is_required()


RAW: dict[str, Any] = {"logit_gap": [1, 2], "logprob_clean": [-1, -1], "logprob_contrast": [-2, -2]}


def test_weights_take_it_or_leave_it(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "WeightsRequest", schemas.weights_request())
    without, given = (client.post("/v1/weights", json={**RAW, **toy}) for toy in ({}, {"toy": [7, None]}))
    assert without.status_code == given.status_code == 200
    assert without.json() == given.json(), "cal does not read it"
    flags = client.post("/v1/weights", json={**RAW, "is_toy": [True]})
    assert flags.status_code == 422 and "one entry per token" in flags.text
    short = client.post("/v1/weights", json={**RAW, "toy": [7]})
    assert short.status_code == 422 and "one entry per token" in short.text
    lacking = client.post("/v1/weights", json={name: RAW[name] for name in list(RAW)[1:]})
    assert lacking.status_code == 422, "a required one is required still"


def test_a_method_can_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(routes, "WeightsRequest", schemas.weights_request())
    monkeypatch.setattr(routes, "weights_of", lambda method, scores: seen.append(scores) or scores.logit_gap)
    routes._weights(
        b'{"logit_gap": [1], "logprob_clean": [1], "logprob_contrast": [1], "toy": [3], "turns": [2], "is_toy": [true]}'
    )
    assert seen[0].optional["is_toy"].tolist() == [True] and seen[0].optional["is_toy"].dtype == np.bool_
    assert seen[0].optional["toy"].tolist() == [3] and seen[0].optional["toy"].dtype == np.float32
    assert seen[0].token_turns.tolist() == [2]


def test_a_methods_column_is_asked_for_by_name(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "WeightsRequest", schemas.weights_request())
    plant(monkeypatch, READS_OPTIONAL)
    found = client.post("/v1/weights", json={**RAW, "toy": [7, None], "method": "toy"})
    assert found.json()["weights"] == [14, None]
    for path, body in (("/v1/weights", {**RAW, "method": "toy"}), ("/v1/score", request(method="toy"))):
        lacking = client.post(path, json=body)
        assert (lacking.status_code, lacking.json()["code"]) == (422, "method_invalid")
        assert "has no toy, which the method 'toy' reads" in lacking.json()["detail"]


def test_a_column_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        schemas.WeightsRequest.model_validate({**RAW, "later": [1, 2]})
    assert bodies.parse(schemas.WeightsRequest, b'{"logit_gap": [1], "logprob_clean": [1], "logprob_contrast": [1]}')
