"""A small real backend: the page's router, and POST /v1/score with the packaged model."""

from __future__ import annotations

import json
import math
import time
import uuid
from functools import lru_cache
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from scorer import Sample, Scorer, ScorerConfig
from scorer.errors import ConfigError
from scorer.mini import MODEL_PATH
from scorer.types import Failure
from scorer.weights import Method
from service.page import router

CONTRASTS = ["blank", "masked", "removed", "blur", "noise"]


@lru_cache
def scorer_for(contrast: Any) -> Scorer:
    return Scorer.load(MODEL_PATH, ScorerConfig(contrast=contrast))


def problem(status: int, code: str, detail: str) -> JSONResponse:
    body = {"type": "about:blank", "title": "Not scored", "status": status, "detail": detail, "code": code}
    return JSONResponse(body | {"request_id": uuid.uuid4().hex}, status, media_type="application/problem+json")


def create_app() -> FastAPI:
    app = FastAPI()
    app.include_router(router)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"default": "mini", "models": [{"name": "mini", "fingerprint": "abc", "contrasts": CONTRASTS}]}

    @app.post("/v1/score")
    async def score(request: Request) -> Response:
        return await run_in_threadpool(_score, *await _read(request))

    return app


async def _read(request: Request) -> tuple[dict[str, Any], bytes]:
    if not request.headers["content-type"].startswith("multipart/"):
        body = await request.json()
        import base64

        return body, base64.b64decode(body["image"]["base64"])
    async with request.form() as form:
        part, image = form["request"], form["image"]
        assert isinstance(part, str) and isinstance(image, UploadFile)
        return json.loads(part), await image.read()


def _score(body: dict[str, Any], image: bytes) -> Response:
    started = time.perf_counter()
    contrast = body.get("contrast", "blank")
    try:
        method = Method(body.get("method", "cal"), body.get("method_params", {}))
    except ConfigError as error:
        return problem(422, "bad_method", str(error))
    (scores,) = scorer_for(contrast).score([Sample.caption("1", image, body["text"], body.get("prompt"))])
    if isinstance(scores, Failure):
        return problem(422, scores.code, scores.message)
    columns = {
        "id": scores.token_ids,
        "start": scores.token_starts,
        "end": scores.token_ends,
        "turn": scores.token_turns,
        "logit_gap": scores.logit_gap,
        "logprob_clean": scores.logprob_clean,
        "logprob_contrast": scores.logprob_contrast,
        "weight": method(scores),
    }
    data = body["text"].encode()
    values = {name: [_number(value) for value in column.tolist()] for name, column in columns.items()}
    tokens: list[dict[str, Any]] = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    for token in tokens:
        token["text"] = data[token["start"] : token["end"]].decode("utf-8", "replace")
    ms = 1000 * (time.perf_counter() - started)
    return JSONResponse(
        {
            "request_id": uuid.uuid4().hex,
            "model": "mini",
            "fingerprint": "abc",
            "contrast": contrast,
            "method": method.name,
            "method_params": method.params,
            "turns": [body["text"]],
            "tokens": tokens,
            "totals": {"tokens": len(tokens), "mean_weight": sum(values["weight"]) / len(tokens)},
            "timing": {"queue_ms": 0.0, "engine_ms": ms, "total_ms": ms},
        }
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
