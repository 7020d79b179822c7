"""The routes under /v1."""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.responses import Response

from scorer.columns import REQUIRED
from scorer.results import TokenScores
from scorer.weights import DEFAULT_METHOD, METHODS
from service import bodies, problems, schemas
from service.disconnect import while_connected
from service.problems import ProblemError
from service.responses import JsonDocument, nulled, weights_of
from service.schemas import ScoreRequest, WeightsRequest
from service.scoring import ScoringService, make_method

router = APIRouter()


async def scoring_service(request: Request) -> ScoringService:  # async: FastAPI runs other functions in a pool
    """Return the scoring service of the application."""
    service: ScoringService = request.app.state.service
    return service


Service = Annotated[ScoringService, Depends(scoring_service)]


_ANY_REQUEST: Final = (400, 408, 431, 500, 503)
"""Statuses that :mod:`service.connections` answers with before a route is chosen, and that of a defect."""
_ERROR_HEADERS: Final = {
    401: {"WWW-Authenticate": {"description": "Basic, so that browsers ask for the key", "required": True}},
    429: {"Retry-After": {"description": "seconds after which to try again", "required": True}},
    503: {"Retry-After": {"description": "seconds after which to try again", "required": True}},
}


def described_headers(status: int) -> dict[str, Any]:
    """Return the headers of a response as OpenAPI describes them."""
    always = {
        "X-Request-ID": {
            "description": "that of the request if it is 1–64 of A–Z, a–z, 0–9, '.', '_' and '-'; else a new one",
            "required": True,
        },
    }
    found = {**always, **_ERROR_HEADERS.get(status, {})}
    kinds = {"Retry-After": {"type": "integer", "minimum": 1}}
    return {name: {**header, "schema": kinds.get(name, {"type": "string"})} for name, header in found.items()}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the problems that a route answers with, and those that any route may."""
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in sorted({*statuses, *_ANY_REQUEST})
    }


def _body(model: type[BaseModel], **further: Any) -> dict[str, Any]:
    """Describe a body that is parsed here: FastAPI would parse it on the event loop."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}, **further}}}


_FORM = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["image", "request"],
            "additionalProperties": False,
            "properties": {
                "image": {"type": "string", "format": "binary", "description": "the image file, with a file name"},
                "request": {"$ref": "#/components/schemas/ScoringOptions"},
            },
        },
        "encoding": {
            "image": {"contentType": "application/octet-stream, image/*"},
            "request": {"contentType": "application/json"},
        },
    }
}
_SCORE_ERRORS = errors(400, 401, 408, 413, 415, 422, 429, 503, 504)


@router.post(
    "/v1/score",
    summary="Score one sample",
    responses={200: {"model": schemas.ScoreResponse}, **_SCORE_ERRORS},
    openapi_extra=_body(ScoreRequest, **_FORM),
)
async def score(request: Request, service: Service) -> Response:
    """Return the tokens with text, byte span, raw scores and weight, and the totals."""
    service.check_ready()  # before the body is read
    with service.admission.slots(1):
        call = await bodies.read_score(request, service.parse)
        work = service.score(call, problems.request_id(request.scope), request.state.arrived)
        return JsonDocument(await while_connected(request.receive, work))


@router.post(
    "/v1/score/batch",
    summary="Score several samples",
    responses={200: {"model": schemas.BatchResponse}, **_SCORE_ERRORS},
    openapi_extra=_body(schemas.BatchRequest),
)
async def score_batch(request: Request, service: Service) -> Response:
    """Return a result or an error for each item, in the order of the request."""
    service.check_ready()  # before the body is read
    with service.admission.slots(1):
        items = await bodies.read_json(request, partial(_items, limit=service.settings.max_items), service.parse)
        with service.admission.slots(len(items) - 1):
            work = asyncio.gather(*(_item(service, request, i, item) for i, item in enumerate(items)))
            return JsonDocument({"results": await while_connected(request.receive, _all(work))})


async def _all(work: asyncio.Future[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return await work


async def _item(
    service: ScoringService, request: Request, index: int, item: ScoreRequest | ProblemError
) -> dict[str, Any]:
    request_id = problems.request_id(request.scope)
    try:
        if isinstance(item, ProblemError):
            raise item
        result = await service.score(bodies.as_call(item), request_id, request.state.arrived)
    except ProblemError as problem:
        return {"index": index, "error": problem.document(request_id)}
    return {"index": index, "result": result}


def _items(body: bytes, limit: int) -> list[ScoreRequest | ProblemError]:
    """Return the items of a batch; an invalid item becomes its error."""
    document = bodies.parse_json(body)
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list) or len(document) != 1 or not items:
        raise ProblemError(422, "invalid_request", 'the body must be {"items": [...]}, with at least one item')
    if len(items) > limit:
        raise ProblemError(
            422, "too_many_items", f"the body has {len(items)} items, more than max_items={limit}; send fewer at once"
        )
    return [_valid_or_problem(item, i) for i, item in enumerate(items)]


def _valid_or_problem(item: Any, index: int) -> ScoreRequest | ProblemError:
    try:
        return bodies.validate(ScoreRequest, item, ("items", index))
    except ProblemError as problem:
        return problem


@router.post(
    "/v1/weights",
    summary="Derive weights from raw scores",
    responses={200: {"model": schemas.WeightsResponse}, **errors(400, 401, 408, 413, 415, 422, 429)},
    openapi_extra=_body(WeightsRequest),
)
async def weights(request: Request, service: Service) -> Response:
    """Raw scores of one request to /v1/score serve every method; the model is not used."""
    return JsonDocument(await bodies.read_json(request, _weights, service.parse))


def _weights(body: bytes) -> dict[str, Any]:
    parsed = bodies.parse(WeightsRequest, body)
    method = make_method(parsed.method, parsed.method_params)
    arrays = {column.name: np.array(values, column.dtype) for column, values in parsed.raw()}  # None becomes NaN
    count = len(arrays["logit_gap"])
    arrays |= {column.name: np.arange(count).astype(column.dtype) for column in REQUIRED if column.kind == "span"}
    arrays["token_turns"] = np.array(parsed.turns if parsed.turns is not None else [0] * count, np.int16)
    arrays |= {column.name: np.array(values, column.dtype) for column, values in parsed.further_spans()}
    scores = TokenScores.from_arrays("request", "", arrays)
    return {
        "method": method.name,
        "method_params": dict(method.params),
        "weights": nulled(weights_of(method, scores)),
    }


@router.get(
    "/v1/models",
    summary="List models and methods",
    responses={200: {"model": schemas.ModelsResponse}, **errors(401, 503)},
)
async def models(service: Service) -> Response:
    """Describe the model, its contrasts and the weighting methods."""
    described = service.models.describe()
    return JsonDocument(
        {
            "default": described["name"],
            "models": [described],
            "default_method": DEFAULT_METHOD,
            "methods": [method.to_dict() for method in METHODS.values()],
        }
    )
