"""Errors as the client sees them: problem details by RFC 9457, each with a stable ``code``.

ProblemError            an error with a status, a code and a remedy
problem_response        renders it as application/problem+json
install                 does so for every exception that FastAPI and Starlette raise
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from scorer.errors import FailureCode, RowError

MEDIA_TYPE: Final = "application/problem+json"

_CODES: Final = {404: "not_found", 405: "method_not_allowed"}
_LISTED_ERRORS: Final = 20

STATUS_OF_ROW: Final[Mapping[FailureCode, int]] = {
    FailureCode.IMAGE_TOO_LARGE: 413,
    FailureCode.IMAGE_FORMAT: 415,
}
"""HTTP statuses of samples that cannot be scored; 422 for any other code."""


class ProblemError(Exception):
    """A request that cannot be served.

    Attributes:
        status: The HTTP status.
        code: A stable code for programs; ``detail`` is for people.
        headers: Additional response headers, such as Retry-After.
        errors: Errors by field: ``{"loc", "msg", "type"}``.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = errors

    def document(self, request_id: str) -> dict[str, Any]:
        """Return the problem as plain data."""
        document: dict[str, Any] = {
            "type": f"urn:tokensight:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        if self.errors is not None:
            document["errors"] = list(self.errors)
        return document


def reason(error: Mapping[str, Any]) -> str:
    """Return why pydantic refuses a value, without the prefix that it adds to errors of our own."""
    return str(error["msg"]).removeprefix("Value error, ")


def of_row(code: FailureCode, message: str) -> ProblemError:
    """Return the problem of a sample that cannot be scored."""
    return ProblemError(STATUS_OF_ROW.get(code, 422), code.value, message)


def of_validation(error: ValidationError, where: Sequence[str | int] = ()) -> ProblemError:
    """Return the problem of a JSON body that does not validate, without repeating what the client sent."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    errors = [{"loc": [*where, *one["loc"]], "msg": reason(one), "type": one["type"]} for one in found[:_LISTED_ERRORS]]
    first = errors[0]
    place = ".".join(map(str, first["loc"])) or "the body"
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return ProblemError(422, "invalid_request", f"{place}: {first['msg']}{more}; see /docs", errors=errors)


def request_id(scope: Scope) -> str:
    """Return the id assigned by :class:`~service.request_context.RequestContext`, or an empty string."""
    return str(scope.get("state", {}).get("request_id", ""))


def standard_headers(request_id: str) -> dict[str, str]:
    """Return the headers of every response, some of which a route may override."""
    return {"X-Request-ID": request_id, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def problem_response(problem: ProblemError, scope: Scope) -> Response:
    """Render ``application/problem+json`` in ASCII: lone surrogates sent by a client must not break the response."""
    content = json.dumps(problem.document(request_id(scope)), allow_nan=False).encode()
    return Response(content, problem.status, problem.headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every uncaught exception with a problem, never with a traceback."""

    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return problem_response(error, request.scope)

    async def on_row_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RowError)
        return problem_response(of_row(error.code, error.message), request.scope)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = _CODES.get(error.status_code, "bad_request" if error.status_code < 500 else "internal_error")
        problem = ProblemError(error.status_code, code, str(error.detail), error.headers)
        return problem_response(problem, request.scope)

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [{"loc": list(e["loc"]), "msg": reason(e), "type": e["type"]} for e in error.errors()]
        problem = ProblemError(422, "invalid_request", "the request is invalid; see /docs", errors=errors)
        return problem_response(problem, request.scope)

    async def on_unexpected(request: Request, error: Exception) -> Response:
        # Starlette answers it outside all other middleware, so nothing else adds the headers of every response.
        headers = standard_headers(request_id(request.scope))
        problem = ProblemError(
            500, "internal_error", "the service failed; its log has the cause under this request_id", headers
        )
        return problem_response(problem, request.scope)

    app.add_exception_handler(ProblemError, on_problem)
    app.add_exception_handler(RowError, on_row_error)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(Exception, on_unexpected)
