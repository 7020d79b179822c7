"""The OpenAPI description: what it promises is kept, for made-up requests and for its own examples."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from starlette.testclient import TestClient

from service.app import create_app
from tests.service import helpers
from tests.service.helpers import Live

DESCRIPTION: dict[str, Any] = create_app(helpers.settings()).openapi()
schema = schemathesis.openapi.from_dict(DESCRIPTION)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    allow_header_conformance,
    unsupported_method,
]
"""All that apply but one: what fits the schema may be refused, as no schema says which base64 is a picture's."""


@schema.parametrize()
@settings(
    max_examples=30,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_description_is_kept(case: schemathesis.Case, live: Live) -> None:
    # An item of a batch that does not validate is its own error, and the batch's answer still 200.
    apart = [negative_data_rejection] if case.path == "/v1/score/batch" else []
    case.call_and_validate(base_url=f"http://127.0.0.1:{live.port}", checks=CHECKS, excluded_checks=apart)


def examples() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for path, operations in DESCRIPTION["paths"].items():
        for operation in operations.values():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is not None:
                name = body["schema"]["$ref"].rpartition("/")[2]
                found += [(path, example) for example in DESCRIPTION["components"]["schemas"][name]["examples"]]
    return found


@pytest.mark.parametrize(("path", "example"), examples())
def test_its_examples_work(client: TestClient, path: str, example: dict[str, Any]) -> None:
    answer = client.post(path, json=example)
    assert answer.status_code == 200, answer.text
    assert "error" not in answer.text


def test_it_describes_every_body_and_every_problem() -> None:
    assert {path for path, _ in examples()} == {"/v1/score", "/v1/score/batch", "/v1/weights"}
    assert "multipart/form-data" in DESCRIPTION["paths"]["/v1/score"]["post"]["requestBody"]["content"]
    for operations in DESCRIPTION["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], operation["operationId"]


def test_the_documentation_is_served(client: TestClient) -> None:
    assert client.get("/docs").status_code == 200
    assert client.get("/openapi.json").json()["paths"].keys() == DESCRIPTION["paths"].keys()
