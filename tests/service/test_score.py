"""Scores over HTTP are the engine's own, in every form of request."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from scorer import Sample, Scorer
from scorer.contrasts import CONTRASTS as RECORDS
from scorer.mini import MODEL_PATH
from scorer.results import TokenScores
from scorer.weights import METHODS, Method
from service import schemas
from service.scorer_pool import ScorerPool
from tests.methods import set_by_hand
from tests.service.helpers import encoded, picture, request

CONTRASTS = schemas.contrast_names()
TEXT = "Two red kites 🪁 over a naïve boat."
TOLERANCE = 1e-4
"""Rounding: rows of one batch are padded otherwise than alone."""


def score(client: TestClient, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    schemas.ScoreResponse.model_validate(document)
    return document


def column(document: dict[str, Any], name: str) -> list[Any]:
    return [token[name] for token in document["tokens"]]


@pytest.fixture(scope="module")
def expected(models: ScorerPool) -> dict[str, TokenScores]:
    """By contrast: what the batch job's engine gives, each contrast by a scorer that was loaded for it alone."""
    sample = Sample.caption("1", picture(), TEXT)
    found = {}
    for contrast in CONTRASTS:
        config = models.settings.model_copy(update={"contrast": contrast}).scorer_config()
        (found[contrast],) = Scorer.load(MODEL_PATH, config).score([sample])
    return found  # type: ignore[return-value]  # failures would fail the tests


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_numbers_are_the_batch_jobs(client: TestClient, expected: dict[str, TokenScores], contrast: str) -> None:
    found = score(client, request(TEXT, contrast=contrast))
    scores = expected[contrast]
    assert column(found, "id") == scores.token_ids.tolist()
    assert column(found, "start") == scores.token_starts.tolist()
    assert column(found, "end") == scores.token_ends.tolist()
    for name in ("logit_gap", "logprob_clean", "logprob_contrast"):
        np.testing.assert_allclose(column(found, name), getattr(scores, name), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(column(found, "weight"), Method("cal")(scores), rtol=0, atol=TOLERANCE)


def test_further_contrasts_add_their_raw_scores(client: TestClient, expected: dict[str, TokenScores]) -> None:
    found = score(client, request(TEXT, contrast="masked", further_contrasts=["blur", "blank"]))
    assert (found["contrast"], found["further_contrasts"]) == ("masked", ["blank", "blur"])
    alone = score(client, request(TEXT, contrast="masked"))
    assert alone["further_contrasts"] == []
    assert found["fingerprint"] != alone["fingerprint"]
    for name in ("logit_gap", "logprob_clean", "logprob_contrast", "weight"):
        np.testing.assert_allclose(column(found, name), column(alone, name), rtol=0, atol=TOLERANCE)
    for contrast in ("blank", "blur"):
        names = {f"logit_gap_{contrast}": "logit_gap", f"logprob_{contrast}": "logprob_contrast"}
        for name, plain in names.items():
            np.testing.assert_allclose(column(found, name), getattr(expected[contrast], plain), rtol=0, atol=TOLERANCE)
            other = getattr(expected["masked"], plain)
            assert np.abs(np.array(column(found, name)) - other).max() > 100 * TOLERANCE, "a negative control"
    assert "logit_gap_blur" not in alone["tokens"][0]


def test_combinations_beyond_those_that_are_kept_are_scored_alike(client: TestClient, models: ScorerPool) -> None:
    names = [name for name in models.contrasts if name != "blank"]
    first = score(client, request(TEXT, further_contrasts=names[:1]))
    for name in names:
        assert score(client, request(TEXT, further_contrasts=[name]))["further_contrasts"] == [name]
    assert len(models._combined) < len(names), "some were dropped"
    again = score(client, request(TEXT, further_contrasts=names[:1]))
    assert again["fingerprint"] == first["fingerprint"]
    np.testing.assert_allclose(
        column(again, f"logit_gap_{names[0]}"), column(first, f"logit_gap_{names[0]}"), rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize(
    "options",
    [
        {"further_contrasts": ["blank"]},
        {"contrast": "blur", "further_contrasts": ["blur"]},
        {"further_contrasts": ["blur", "blur"]},
    ],
)
def test_a_contrast_that_is_named_twice_is_refused(client: TestClient, options: dict[str, Any]) -> None:
    answer = client.post("/v1/score", json=request(TEXT, **options))
    assert (answer.status_code, answer.json()["code"]) == (422, "contrast_repeated")
    assert "is named twice" in answer.json()["detail"]


def test_the_comparison_tells_pictures_texts_and_contrasts_apart(
    client: TestClient, expected: dict[str, TokenScores]
) -> None:
    """Negative control: what is not the same request is far from the expected numbers."""
    for other in (request(TEXT, seed=1), request(TEXT, prompt="Tell."), request(TEXT, contrast="blur")):
        found = score(client, other)
        difference = np.abs(np.array(column(found, "logit_gap")) - expected["blank"].logit_gap).max()
        assert difference > 100 * TOLERANCE


def test_concurrent_requests_do_not_mix(client: TestClient) -> None:
    bodies = [request(f"A caption, number {'one ' * i}.", seed=i) for i in range(8)]
    alone = [score(client, body) for body in bodies]
    batch = client.post("/v1/score/batch", json={"items": bodies}).json()["results"]
    for i, one in enumerate(alone):
        assert batch[i]["index"] == i
        np.testing.assert_allclose(
            column(batch[i]["result"], "logit_gap"), column(one, "logit_gap"), rtol=0, atol=TOLERANCE
        )


def test_every_form_of_one_picture_gives_one_result(client: TestClient) -> None:
    data = picture()
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    by_url = score(client, {"image": {"data_url": url}, "text": TEXT})
    form = client.post(
        "/v1/score", files={"image": ("kite.png", data, "image/png")}, data={"request": json.dumps({"text": TEXT})}
    )
    assert form.status_code == 200, form.text
    messages = [{"role": "user", "content": "<image>\nDescribe the image."}, {"role": "assistant", "content": TEXT}]
    spoken = score(client, {"image": encoded(data), "messages": messages})
    plain = score(client, request(TEXT))
    for other in (by_url, form.json(), spoken):
        assert other["turns"] == [TEXT]
        np.testing.assert_allclose(column(other, "logit_gap"), column(plain, "logit_gap"), rtol=0, atol=TOLERANCE)


def test_every_assistant_turn_is_scored(client: TestClient) -> None:
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "A kite."},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "Two boats."},
    ]
    found = score(client, {"image": encoded(picture()), "messages": messages})
    assert found["turns"] == ["A kite.", "Two boats."]
    assert set(column(found, "turn")) == {0, 1}
    for turn, text in enumerate(found["turns"]):
        spans = [(t["start"], t["end"]) for t in found["tokens"] if t["turn"] == turn]
        assert spans[0][0] == 0
        assert spans[-1][1] == len(text.encode())


def test_totals_are_those_of_the_tokens(client: TestClient) -> None:
    found = score(client, request(TEXT))
    totals = found["totals"]
    assert totals["tokens"] == len(found["tokens"])
    assert math.isclose(totals["mean_gap"], np.mean(column(found, "logit_gap")), rel_tol=1e-6)
    assert math.isclose(totals["logprob_clean"], np.sum(column(found, "logprob_clean")), rel_tol=1e-6)
    assert math.isclose(totals["mean_weight"], np.mean(column(found, "weight")), rel_tol=1e-6)


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        (["tokens"], {"id", "text"}),
        (["spans"], {"turn", "start", "end", "is_stop"}),
        (["raw", "weights"], {"logit_gap", "logprob_clean", "logprob_contrast", "weight"}),
        ([], set()),
    ],
)
def test_what_is_returned_is_chosen(client: TestClient, parts: list[str], names: set[str]) -> None:
    found = score(client, request(TEXT, **{"return": parts}))
    assert found["tokens"]
    assert all(set(token) == names for token in found["tokens"])


def test_the_text_of_tokens_is_the_captions_own(client: TestClient) -> None:
    found = score(client, request("A red kite."))
    assert "".join(column(found, "text")) == "A red kite."
    assert column(found, "text")[-1] == ""
    assert column(found, "is_stop") == [False] * (len(found["tokens"]) - 1) + [True]
    assert found["tokens"][-1]["start"] == found["tokens"][-1]["end"] == len("A red kite.")


@pytest.mark.parametrize("method", METHODS)
def test_weights_derive_again_from_what_was_returned(client: TestClient, method: str) -> None:
    params = set_by_hand(METHODS[method])
    found = score(client, request(TEXT, method=method, method_params=params))
    assert found["method_params"] == Method(method, params).params
    raw = {name: column(found, name) for name in ("logit_gap", "logprob_clean", "logprob_contrast")}
    spans = {"turns": column(found, "turn"), "is_stop": column(found, "is_stop")}
    answer = client.post("/v1/weights", json={"method": method, "method_params": params, **raw, **spans})
    assert answer.status_code == 200, answer.text
    assert answer.json()["weights"] == column(found, "weight")


def test_undefined_raw_scores_give_undefined_weights(client: TestClient) -> None:
    body = {"logit_gap": [2, None, 2, 2], "logprob_clean": [-1] * 4, "logprob_contrast": [-2] * 4}
    answer = client.post("/v1/weights", json=body)
    assert answer.json()["weights"] == [None, None, None, 2.0]
    assert client.post("/v1/weights", json={**body, "turns": [0, 0, 1, 1]}).json()["weights"] == [None, None, 2.0, 2.0]


def test_no_scores_no_weights(client: TestClient) -> None:
    body: dict[str, Any] = {"logit_gap": [], "logprob_clean": [], "logprob_contrast": []}
    for method in METHODS:
        given = {"method": method, "method_params": set_by_hand(METHODS[method])}
        assert client.post("/v1/weights", json={**given, **body}).json()["weights"] == []


@pytest.mark.parametrize("name", [name for name, record in METHODS.items() if record.of_dataset])
def test_a_method_that_needs_a_dataset_is_refused_with_what_to_set(client: TestClient, name: str) -> None:
    words = f"the method '{name}' takes its threshold from the gaps of the whole dataset, and a request has one sample;"
    body: dict[str, Any] = {"method": name, "logit_gap": [], "logprob_clean": [], "logprob_contrast": []}
    for answer in (client.post("/v1/score", json=request(method=name)), client.post("/v1/weights", json=body)):
        assert (answer.status_code, answer.json()["code"]) == (422, "method_invalid")
        assert words in answer.json()["detail"]


def test_names_in_the_schema_are_the_librarys() -> None:
    for model in (schemas.ScoreRequest, schemas.WeightsRequest, schemas.ScoreResponse):
        assert model.model_json_schema()["properties"]["method"]["enum"] == list(METHODS)
    assert set(CONTRASTS) == set(RECORDS) - {"image", "shuffled"}, "a request has one picture, and no other rows"


def test_models_says_what_can_be_asked_for(client: TestClient) -> None:
    found = client.get("/v1/models").json()
    schemas.ModelsResponse.model_validate(found)
    (model,) = found["models"]
    assert found["default"] == model["name"] == "mini"
    assert set(model["contrasts"]) == set(CONTRASTS)
    assert model["contrast_words"] == {name: RECORDS[name].phrase for name in model["contrasts"]}
    assert len(set(model["fingerprints"].values())) == len(CONTRASTS)
    assert score(client, request(TEXT, contrast="blur"))["fingerprint"] == model["fingerprints"]["blur"]
    assert [method["name"] for method in found["methods"]] == list(METHODS)
    for method in found["methods"]:
        assert {name: each["default"] for name, each in method["params"].items()} == Method(method["name"]).params
    assert found["default_method"] == Method().name


def test_items_of_a_batch_fail_alone(client: TestClient) -> None:
    items = [request(), {}, request("  "), {**request(), "image": encoded(b"no picture")}, request(contrast="blur")]
    answer = client.post("/v1/score/batch", json={"items": items})
    assert answer.status_code == 200
    schemas.BatchResponse.model_validate(answer.json())
    results = answer.json()["results"]
    assert [one["index"] for one in results] == list(range(5))
    codes = [one["error"]["code"] if "error" in one else "ok" for one in results]
    assert codes == ["ok", "invalid_request", "text_missing", "image_format", "ok"]
    assert results[1]["error"]["errors"][0]["loc"][:2] == ["items", 1]


def test_a_batch_is_bounded(client: TestClient) -> None:
    answer = client.post("/v1/score/batch", json={"items": [request()] * 33})
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_items")
