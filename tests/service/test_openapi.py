"""The OpenAPI description: what it promises is kept, for made-up requests and for its own examples."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from pydantic import ValidationError
from schemathesis.config import SchemathesisConfig
from starlette.testclient import TestClient

from service import schemas
from service.app import create_app
from service.scorer_pool import ScorerPool
from service.security import OPEN_PATHS
from tests.service import helpers
from tests.service.helpers import KEY, Live, app_of, serving

DESCRIPTION: dict[str, Any] = create_app(helpers.settings()).openapi()
LOCKED: dict[str, Any] = create_app(helpers.settings(api_keys=(KEY,))).openapi()

CONFIG = SchemathesisConfig()
# No schema says which base64 is a picture's (415), which is too large (413), and that a text is no caption of its
# contrast, a method's parameter beyond its range or a list shorter than its neighbour (422).
CONFIG.projects.default.checks.positive_data_acceptance.expected_statuses = ["2xx", "413", "415", "422"]

bounded = settings(
    max_examples=30,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
open_schema = schemathesis.openapi.from_dict(DESCRIPTION, config=CONFIG)
locked_schema = schemathesis.openapi.from_dict(LOCKED, config=CONFIG)


@locked_schema.auth()
class Key:
    """Gives the key to every request but those with which schemathesis tries to do without."""

    def get(self, case: schemathesis.Case, context: schemathesis.AuthContext) -> str:
        return KEY

    def set(self, case: schemathesis.Case, data: str, context: schemathesis.AuthContext) -> None:
        case.headers["X-API-Key"] = data


@pytest.fixture(scope="module")
def locked(models: ScorerPool) -> Iterator[Live]:
    with serving(app_of(models, api_keys=(KEY,))) as live:
        yield live


@open_schema.parametrize()
@bounded
def test_the_description_is_kept(case: schemathesis.Case, live: Live) -> None:
    """Every check of schemathesis, for made-up requests that fit the description and that do not."""
    case.call_and_validate(base_url=f"http://127.0.0.1:{live.port}")


@locked_schema.parametrize()
@bounded
def test_the_description_is_kept_where_a_key_is_needed(case: schemathesis.Case, locked: Live) -> None:
    """The same with keys: also that each described way to give one is needed and enough."""
    case.call_and_validate(base_url=f"http://127.0.0.1:{locked.port}")


def conforms(name: str, document: Any) -> bool:
    """Whether a document fits the schema of that name in the description."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DESCRIPTION["components"]}
    return jsonschema_rs.validator_for(schema).is_valid(document)


def choices(**values: Any) -> Iterator[dict[str, Any]]:
    """Every object in which each field is absent, null or the value."""
    for chosen in itertools.product(*[((), (name, None), (name, value)) for name, value in values.items()]):
        yield dict(pair for pair in chosen if pair)


def test_rules_between_fields_are_part_of_the_description() -> None:
    messages = [{"role": "assistant", "content": "A kite."}]
    image = {"base64": "AAAA"}
    texts = [{"image": image, **one} for one in choices(text="A kite.", messages=messages, prompt="Describe it.")]
    images = [{"text": "A kite.", "image": one} for one in choices(base64="A", data_url="data:,", url="http://a.org")]
    found = []
    for document in texts + images:
        try:
            schemas.ScoreRequest.model_validate(document)
        except ValidationError:
            found.append(False)
        else:
            found.append(True)
        assert conforms("ScoreRequest", document) == found[-1], document
    assert 5 < sum(found) < len(found) - 20, "negative control: both kinds are among them"


def test_items_of_a_batch_that_fail_are_part_of_the_description(client: TestClient) -> None:
    items = [helpers.request(), {"text": 5}, "no object", helpers.request(image={"base64": "AAAA"})]
    answer = client.post("/v1/score/batch", json={"items": items})
    document = answer.json()
    assert conforms("BatchRequest", {"items": items})
    assert conforms("BatchResponse", document)
    assert [item.keys() - {"index"} for item in document["results"]] == [{"result"}, {"error"}, {"error"}, {"error"}]
    for change in ({"error": document["results"][1]["error"]}, {"result": None}, {"detail": ""}):
        document["results"][0] |= change
        assert not conforms("BatchResponse", document), "negative control"
    assert DESCRIPTION["components"]["schemas"]["BatchRequest"]["properties"]["items"]["maxItems"] == 32


def test_every_answer_describes_its_headers_and_the_access_is_that_of_the_settings() -> None:
    assert "security" not in DESCRIPTION
    assert {next(iter(one)) for one in LOCKED["security"]} == {"bearer", "header", "basic"}
    retry = {"Retry-After"}
    special = {"401": {"WWW-Authenticate"}, "429": retry, "503": retry}
    for path, operations in LOCKED["paths"].items():
        for operation in operations.values():
            assert ("401" in operation["responses"]) == (operation.get("security") != []) == (path not in OPEN_PATHS)
            for status, answer in operation["responses"].items():
                assert answer["headers"].keys() == {"X-Request-ID", *special.get(status, ())}


def test_a_defect_is_answered_as_described(models: ScorerPool) -> None:
    app = app_of(models)
    app.state.service.parse = None  # what /v1/weights calls for a long body
    with TestClient(app, raise_server_exceptions=False) as client:
        headers = {"Content-Type": "application/json", "X-Request-ID": "mine-3"}
        answer = client.post("/v1/weights", content=b" " * 100_000, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert conforms("Problem", answer.json())
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "mine-3"


def test_parts_of_a_form_have_media_types() -> None:
    form = DESCRIPTION["paths"]["/v1/score"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert form["encoding"].keys() == form["schema"]["properties"].keys()
    assert form["encoding"]["request"]["contentType"] == "application/json"


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


def test_the_description_is_served(client: TestClient) -> None:
    assert client.get("/openapi.json").json()["paths"].keys() == DESCRIPTION["paths"].keys()
