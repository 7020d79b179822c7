"""Whether the service works, for orchestrators and people."""

from __future__ import annotations

import platform

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

import scorer.versions
from service import schemas
from service.responses import JsonDocument
from service.routes import Service, errors

router = APIRouter()


@router.get("/health/live", summary="The event loop turns", responses={200: {"model": schemas.Health}})
async def live() -> Response:
    """Answered by the event loop alone; needs no key."""
    return JsonDocument({"status": "live"})


@router.get("/health/ready", summary="Samples are scored", responses={200: {"model": schemas.Health}, **errors(503)})
async def ready(service: Service) -> Response:
    """The model is warm and its thread gave a sign of life lately; needs no key."""
    service.check_ready()
    return JsonDocument({"status": "ready"})


@router.get(
    "/metrics",
    summary="For Prometheus",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    response_class=Response,
)
async def metrics(service: Service) -> Response:
    """Needs no key."""
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/version", summary="What runs", responses={200: {"model": schemas.Version}, **errors(401)})
async def versions() -> Response:
    """Versions of the service and what its scores depend on."""
    return JsonDocument({"python": platform.python_version(), **scorer.versions.versions("torch", "transformers")})
