"""The HTTP application: the same path from request to model under uvicorn and Ray Serve."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

import scorer
import service.page
import service.page.reference
from service import health, problems, routes, schemas
from service.limits import BodyLimit
from service.request_context import RequestContext
from service.scoring import ScoringService
from service.security import OPEN_PATHS, SCHEMES, KeyCheck
from service.settings import Settings

_PARSED_HERE = (
    schemas.ScoreRequest,
    schemas.BatchRequest,
    schemas.WeightsRequest,
    schemas.ScoringOptions,
    schemas.Problem,
)
"""Request and problem models that appear in no signature, so FastAPI does not find them."""

_DESCRIPTION: Final = """\
Score how much each token of a text depends on its image, with a frozen reference model, and derive training weights
from the scores.
"""


def create_app(settings: Settings | None = None, scoring: ScoringService | None = None) -> FastAPI:
    """Create the application. Its lifespan loads the model, and at the end answers accepted requests.

    Args:
        settings: Read from the environment by default.
        scoring: For tests and servers that monitor it; created from the settings by default.
    """
    settings = settings or Settings()
    scoring = scoring or ScoringService(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        scoring.start()
        yield
        await scoring.stop()

    app = FastAPI(
        title="tokensight",
        version=scorer.__version__,
        lifespan=lifespan,
        # It would answer a trailing slash with a URL built from the Host header of the client.
        redirect_slashes=False,
        docs_url=None,  # both are in service.page.reference
        redoc_url=None,
    )
    app.state.service = scoring
    problems.install(app)
    app.include_router(routes.router)
    app.include_router(health.router)
    app.include_router(service.page.router)
    app.include_router(service.page.reference.router)
    # The middleware added last sees a request first.
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        pending=scoring.pending_bytes,
        seconds=settings.request_seconds,
        metrics=scoring.metrics,
    )
    app.add_middleware(KeyCheck, keys=[key.get_secret_value() for key in settings.api_keys])
    app.add_middleware(RequestContext, metrics=scoring.metrics)
    app.openapi = lambda: _description(app, settings)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _description(app: FastAPI, settings: Settings) -> dict[str, Any]:
    if app.openapi_schema is None:
        description = get_openapi(title=app.title, version=app.version, description=_DESCRIPTION, routes=app.routes)
        _, further = models_json_schema(
            [(model, "validation") for model in _PARSED_HERE], ref_template="#/components/schemas/{model}"
        )
        described = description.setdefault("components", {}).setdefault("schemas", {})
        for name, schema in further["$defs"].items():
            described.setdefault(name, schema)
        described["BatchRequest"]["properties"]["items"]["maxItems"] = settings.max_items
        for path, operations in description["paths"].items():
            for operation in operations.values():
                for status, answer in operation["responses"].items():
                    answer["headers"] = routes.described_headers(int(status))
                if path in OPEN_PATHS:
                    operation["security"] = []
                    operation["responses"].pop("401", None)
        if settings.api_keys:
            description["components"]["securitySchemes"] = SCHEMES
            description["security"] = [{name: []} for name in SCHEMES]
        app.openapi_schema = description
    return app.openapi_schema
