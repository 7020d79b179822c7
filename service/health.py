"""Health checks, metrics and versions, for orchestrators and people."""

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


@router.get(
    "/health/live", summary="Check that the service is alive", responses={200: {"model": schemas.Health}, **errors()}
)
async def live() -> Response:
    """Answered by the event loop alone. Needs no key."""
    return JsonDocument({"status": "live"})


@router.get(
    "/health/ready",
    summary="Check that the service can score",
    responses={200: {"model": schemas.Health}, **errors(503)},
)
async def ready(service: Service) -> Response:
    """Ready once the model is warm, while its thread sends heartbeats. Needs no key."""
    service.check_ready()
    return JsonDocument({"status": "ready"})


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors()},
    response_class=Response,
)
async def metrics(service: Service) -> Response:
    """Needs no key."""
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/version", summary="List versions", responses={200: {"model": schemas.Version}, **errors(401)})
async def versions() -> Response:
    """Versions of the service and of the libraries that affect scores."""
    return JsonDocument({"python": platform.python_version(), **scorer.versions.versions("torch", "transformers")})
