"""Bodies that nobody sends by mistake: each answer is a problem with a code, never a 5xx, never NaN."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from transformers import AutoTokenizer

from scorer.mini import MODEL_PATH
from scorer.weights import METHODS
from service import bodies, schemas
from service.problems import ProblemError
from service.scoring import MAX_WINDOW
from tests.service.helpers import encoded, picture, request

IMAGE = json.dumps(encoded(picture()))
TOO_WIDE = MAX_WINDOW + 2
JSON = {"Content-Type": "application/json"}


def refused(client: TestClient, body: bytes | str, path: str = "/v1/score", headers: dict[str, str] = JSON) -> Any:
    """The problem that a body is answered with; (status, code)."""
    data = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    answer = client.post(path, content=data, headers=headers)
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    schemas.Problem.model_validate(problem)
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return answer.status_code, problem["code"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "json_invalid")),
        (b"{", (400, "json_invalid")),
        (b"\xff\xfe{}", (400, "json_invalid")),
        (b"\xef\xbb\xbf{}", (400, "json_invalid")),
        (b"{} {}", (400, "json_invalid")),
        (b"[" * 200_000, (400, "json_invalid")),
        (b'{"a":' * 100_000, (400, "json_invalid")),
        (b'{"text": ' + b"9" * 5000 + b"}", (400, "json_invalid")),
        (b"[]", (422, "invalid_request")),
        (b"null", (422, "invalid_request")),
        (b'"text"', (422, "invalid_request")),
        (b"{}", (422, "invalid_request")),
        (f'{{"image": {IMAGE}, "text": "a", "text": "b"}}', (422, "json_duplicate")),
        (f'{{"image": {IMAGE}, "text": "a", "method_params": {{"low": NaN}}}}', (422, "json_not_finite")),
        (f'{{"image": {IMAGE}, "text": "a", "method_params": {{"low": Infinity}}}}', (422, "json_not_finite")),
        (f'{{"image": {IMAGE}, "text": "a", "method_params": {{"low": -Infinity}}}}', (422, "json_not_finite")),
        (f'{{"image": {IMAGE}, "text": "a", "method_params": {{"low": 1e999}}}}', (422, "json_not_finite")),
        (f'{{"image": {IMAGE}, "text": "a", "method_params": {{"low": {"9" * 4000}}}}}', (422, "invalid_request")),
        (f'{{"image": {IMAGE}, "text": "a", "method_params": {{"low": "1"}}}}', (422, "method_invalid")),
        (f'{{"image": {IMAGE}, "text": "a", "method_params": {{"edges": "batch"}}}}', (422, "method_invalid")),
        (f'{{"image": {IMAGE}, "text": "a", "method_params": {{"edges": "{"x" * 33}"}}}}', (422, "invalid_request")),
        (f'{{"image": {IMAGE}, "text": "a", "method_params": {{"low": true}}}}', (422, "invalid_request")),
        (f'{{"image": {IMAGE}, "text": "a", "method_params": {{"low": -1}}}}', (422, "method_invalid")),
        (f'{{"image": {IMAGE}, "text": "a", "method_params": {{"lwo": 1}}}}', (422, "method_invalid")),
        (f'{{"image": {IMAGE}, "text": "a", "method_params": {{"window": 2}}}}', (422, "method_invalid")),
        (f'{{"image": {IMAGE}, "text": "a", "method_params": {{"window": 1e300}}}}', (422, "method_invalid")),
        (
            f'{{"image": {IMAGE}, "text": "a", "method_params": {{"window": {TOO_WIDE}}}}}',
            (422, "method_invalid"),
        ),
        (
            f'{{"image": {IMAGE}, "text": "a", "method_params": {{"low": 1e300, "high": 1e300}}}}',
            (422, "weights_overflow"),
        ),
        (f'{{"image": {IMAGE}, "text": "a", "method": "calm"}}', (422, "invalid_request")),
        (f'{{"image": {IMAGE}, "text": "a", "contrast": "image"}}', (422, "invalid_request")),
        (f'{{"image": {IMAGE}, "text": "a", "return": ["everything"]}}', (422, "invalid_request")),
        (f'{{"image": {IMAGE}, "text": "a", "trust_remote_code": true}}', (422, "invalid_request")),
        (f'{{"image": {IMAGE}, "text": "a", "model": "evil/model"}}', (422, "invalid_request")),
        (f'{{"image": {IMAGE}, "text": "a", "parts": ["raw"]}}', (422, "invalid_request")),
        (f'{{"image": {IMAGE}, "text": 1}}', (422, "invalid_request")),
        (f'{{"image": {IMAGE}, "text": null}}', (422, "invalid_request")),
        (f'{{"image": {IMAGE}, "text": ""}}', (422, "text_missing")),
        (f'{{"image": {IMAGE}, "text": "\\ud800"}}', (422, "text_invalid")),
        (f'{{"image": {IMAGE}, "text": "a", "prompt": "\\ud800"}}', (422, "text_invalid")),
        (f'{{"image": {IMAGE}, "text": "a", "method": "\\ud800"}}', (422, "invalid_request")),
        (b'{"image": {"url": "http://\\ud800/"}, "text": "a"}', (422, "invalid_request")),
        ('{"text": "a"}'.encode("utf-16"), (400, "json_invalid")),
        (f'{{"image": {IMAGE}, "\\ud800": "a"}}', (422, "invalid_request")),
        (f'{{"image": {IMAGE}, "text": "a", "messages": []}}', (422, "invalid_request")),
        (f'{{"image": {IMAGE}, "messages": []}}', (422, "invalid_request")),
        (f'{{"image": {IMAGE}, "messages": [{{"role": "user", "content": "a"}}]}}', (422, "conversation_invalid")),
        (f'{{"image": {IMAGE}, "messages": [{{"role": "tool", "content": "a"}}]}}', (422, "invalid_request")),
        (
            f'{{"image": {IMAGE}, "messages": [{{"role": "assistant", "content": [{{"type": "image"}}]}}]}}',
            (422, "conversation_invalid"),
        ),
        (f'{{"image": {IMAGE}, "prompt": "a", "messages": []}}', (422, "invalid_request")),
        (f'{{"image": {IMAGE}, "text": "{"word " * 5000}"}}', (422, "text_too_long")),
        (f'{{"image": {IMAGE}, "text": "{"x" * 100_000}"}}', (422, "text_too_long")),
        (f'{{"image": {IMAGE}, "text": "a", "prompt": "{"x" * 100_000}"}}', (422, "text_too_long")),
        (b'{"image": {}, "text": "a"}', (422, "invalid_request")),
        (b'{"image": {"base64": "", "url": "http://x.org"}, "text": "a"}', (422, "invalid_request")),
        (b'{"image": {"base64": "@@@@"}, "text": "a"}', (422, "image_unreadable")),
        (b'{"image": {"base64": "AAA"}, "text": "a"}', (422, "image_unreadable")),
        ('{"image": {"base64": "ÄÄÄÄ"}, "text": "a"}', (422, "image_unreadable")),
        (b'{"image": {"base64": "AAAA\\nAAAA"}, "text": "a"}', (422, "image_unreadable")),
        (b'{"image": {"base64": "AAAA"}, "text": "a"}', (415, "image_format")),
        (b'{"image": {"data_url": "AAAA"}, "text": "a"}', (422, "image_unreadable")),
        (b'{"image": {"data_url": "data:image/png,AAAA"}, "text": "a"}', (422, "image_unreadable")),
        (b'{"image": {"data_url": "data:;base64,"}, "text": "a"}', (422, "image_missing")),
        (b'{"image": {"url": "http://images.example.org/a.png"}, "text": "a"}', (422, "image_url_refused")),
        (b'{"image": {"base64": "/etc/passwd"}, "text": "a"}', (422, "image_unreadable")),
        (b'{"image": {"path": "/etc/passwd"}, "text": "a"}', (422, "invalid_request")),
    ],
)
def test_a_hostile_body_is_a_problem(client: TestClient, body: bytes | str, expected: tuple[int, str]) -> None:
    assert refused(client, body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", (422, "invalid_request")),
        (b'{"items": []}', (422, "invalid_request")),
        (b'{"items": {}}', (422, "invalid_request")),
        (b'{"items": [{}], "more": 1}', (422, "invalid_request")),
        (b"[{}]", (422, "invalid_request")),
    ],
)
def test_a_hostile_batch_is_a_problem(client: TestClient, body: bytes, expected: tuple[int, str]) -> None:
    assert refused(client, body, "/v1/score/batch") == expected


SCORES = '"logit_gap": [1], "logprob_clean": [1], "logprob_contrast": [1]'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f"{{{SCORES}, {SCORES}}}", (422, "json_duplicate")),
        ('{"logit_gap": [1, 2], "logprob_clean": [1], "logprob_contrast": [1]}', (422, "invalid_request")),
        ('{"logit_gap": [1e39], "logprob_clean": [1], "logprob_contrast": [1]}', (422, "invalid_request")),
        ('{"logit_gap": [NaN], "logprob_clean": [1], "logprob_contrast": [1]}', (422, "json_not_finite")),
        ('{"logit_gap": ["1"], "logprob_clean": [1], "logprob_contrast": [1]}', (422, "invalid_request")),
        (f'{{{SCORES}, "turns": [-1]}}', (422, "invalid_request")),
        (f'{{{SCORES}, "turns": [40000]}}', (422, "invalid_request")),
        (f'{{{SCORES}, "turns": [0, 0]}}', (422, "invalid_request")),
        (f'{{{SCORES}, "method": "prior", "method_params": {{"alpha": -1}}}}', (422, "method_invalid")),
        (
            '{"turns": [1, 0], "logit_gap": [1, 2], "logprob_clean": [1, 2], "logprob_contrast": [1, 2]}',
            (422, "invalid_request"),
        ),
    ],
)
def test_hostile_raw_scores_are_a_problem(client: TestClient, body: str, expected: tuple[int, str]) -> None:
    assert refused(client, body, "/v1/weights") == expected


@pytest.mark.parametrize("value", [3.4e38, -3.4e38, 1e-45, 0.0])
@pytest.mark.parametrize("method", list(METHODS))
def test_extreme_raw_scores_give_weights_or_null(client: TestClient, method: str, value: float) -> None:
    column = [value, -value, 1.0]
    body = {"method": method, "logit_gap": column, "logprob_clean": column, "logprob_contrast": column[::-1]}
    answer = client.post("/v1/weights", json=body)
    assert answer.status_code in (200, 422), answer.text
    assert "NaN" not in answer.text
    assert "Infinity" not in answer.text


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded", "image/png", "a" * 5000])
def test_other_media_types_are_not_read(client: TestClient, media_type: str) -> None:
    for path in ("/v1/score", "/v1/score/batch", "/v1/weights"):
        assert refused(client, b"{}", path, {"Content-Type": media_type}) == (415, "media_type")


FORM = {"Content-Type": "multipart/form-data; boundary=x"}


def part(name: str, value: str, file: str = "") -> str:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n{value}\r\n'


FILE = '; filename="a.png"'
OPTIONS = part("request", '{"text": "a"}')


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", (422, "form_invalid")),
        ("nothing of a form", (400, "form_invalid")),
        ("--x--\r\n", (422, "form_invalid")),
        (OPTIONS + "--x--\r\n", (422, "form_invalid")),
        (part("image", "AAAA", FILE) + "--x--\r\n", (422, "form_invalid")),
        (part("image", "AAAA") + OPTIONS + "--x--\r\n", (400, "form_invalid")),
        (part("image", "AAAA", FILE) * 2 + OPTIONS + "--x--\r\n", (400, "form_invalid")),
        (part("image", "AAAA", FILE) + part("more", "1") + "--x--\r\n", (422, "form_invalid")),
        (part("image", "AAAA", FILE) + part("request", "{") + "--x--\r\n", (400, "json_invalid")),
        (part("image", "AAAA", FILE) + part("request", "{}") + "--x--\r\n", (422, "invalid_request")),
        (
            part("image", "AAAA", FILE) + part("request", '{"text": "a", "image": {"base64": "AAAA"}}') + "--x--\r\n",
            (422, "invalid_request"),
        ),
        (part("image", "AAAA", FILE) + part("request", '"' + "x" * 2**21) + "--x--\r\n", (400, "form_invalid")),
        (part("image", "AAAA", FILE) + OPTIONS + "--x--\r\n", (415, "image_format")),
        (part("image", "", FILE) + OPTIONS + "--x--\r\n", (422, "image_missing")),
    ],
)
def test_a_hostile_form_is_a_problem(client: TestClient, body: str, expected: tuple[int, str]) -> None:
    assert refused(client, body, headers=FORM) == expected


def test_a_form_without_a_boundary_is_a_problem(client: TestClient) -> None:
    status, _ = refused(client, b"--x--", headers={"Content-Type": "multipart/form-data"})
    assert status == 400


def special_tokens() -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    return sorted({token.content for token in tokenizer.added_tokens_decoder.values()})


@pytest.mark.parametrize("token", special_tokens())
def test_special_tokens_in_a_caption_are_text(client: TestClient, token: str) -> None:
    text = f"A {token} kite{token}"
    answer = client.post("/v1/score", json=request(text, prompt=f"{token}?"))
    assert answer.status_code == 200, answer.text
    tokens = answer.json()["tokens"]
    assert "".join(one["text"] for one in tokens) == text, "spans cover the caption as it was written"
    assert len(tokens) > len(["A", "kite"]) + 2, "a special token would be one token"


@pytest.mark.parametrize(
    "text",
    ["a\x00b", "\x00", "\u202eA kite\u202c", "🪁" * 50, "é́́́", "\r\n\t.", "\u2028", "<image>" * 10, "{{ 7*7 }}{% raw %}"],
)
def test_odd_captions_are_scored_as_they_are(client: TestClient, text: str) -> None:
    answer = client.post("/v1/score", json=request(text))
    assert answer.status_code == 200 or answer.json()["code"] == "text_missing", answer.text
    if answer.status_code == 200:
        found = answer.json()
        assert found["turns"] == [text]
        assert found["tokens"][-1]["end"] == len(text.encode())


@given(body=st.binary(max_size=200))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_json_or_a_problem(body: bytes) -> None:
    for parse in (bodies.parse_score, lambda data: bodies.parse(schemas.WeightsRequest, data)):
        try:
            parse(body)
        except ProblemError as problem:
            assert problem.status in (400, 422)
            json.dumps(problem.document("id"), allow_nan=False).encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from([*schemas.ScoreRequest.model_fields, "return", "base64", "role", "content", "type"])


@given(document=st.dictionaries(names, json_values | st.dictionaries(names, json_values, max_size=3), max_size=5))
@settings(max_examples=100)
def test_any_document_is_a_request_or_a_problem(document: Any) -> None:
    try:
        bodies.parse_score(json.dumps(document).encode())
    except ProblemError as problem:
        assert problem.status in (400, 422)
        json.dumps(problem.document("id"), allow_nan=False).encode()
