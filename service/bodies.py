"""Parse request bodies into validated models. Long parsing runs in a pool, off the event loop."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request

from service.problems import ProblemError, of_validation
from service.schemas import ImageIn, ScoreRequest, ScoringOptions

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)
InPool = Callable[[Callable[[], T]], Awaitable[T]]

_INLINE: Final = 32 * 2**10
"""Bodies up to this many bytes parse faster than a pool can be reached."""
_REQUEST_PART_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class RequestImage:
    """The image of a request: uploaded as a file, or given by ``image`` in the JSON."""

    uploaded: bytes | None = None
    in_json: ImageIn | None = None


@dataclass(frozen=True, slots=True)
class ScoreCall:
    """One sample to score."""

    image: RequestImage
    options: ScoringOptions


async def read_json(request: Request, parse: Callable[[bytes], T], pool: InPool[T]) -> T:
    """Read and parse a JSON body.

    Raises:
        ProblemError: 400, 413, 415 or 422.
    """
    if media_type(request) != "application/json":
        raise _unsupported(request, "application/json")
    body = await _read(request)
    return parse(body) if len(body) <= _INLINE else await pool(partial(parse, body))


async def read_score(request: Request, pool: InPool[ScoreCall]) -> ScoreCall:
    """Read the body of /v1/score: JSON, or a form with the image as a file. Raises ProblemError."""
    if media_type(request) == "multipart/form-data":
        return await _read_form(request)
    if media_type(request) != "application/json":
        raise _unsupported(request, "application/json or multipart/form-data")
    return await read_json(request, parse_score, pool)


def parse_score(body: bytes) -> ScoreCall:
    """Parse a :class:`ScoreRequest` from JSON. Raises ProblemError."""
    return as_call(validate(ScoreRequest, parse_json(body)))


def as_call(request: ScoreRequest) -> ScoreCall:
    """Return the call of a request with its image in JSON."""
    return ScoreCall(RequestImage(in_json=request.image), request)


def parse(model: type[Model], body: bytes) -> Model:
    """Parse JSON into a model. Raises ProblemError."""
    return validate(model, parse_json(body))


def validate(model: type[Model], document: Any, where: tuple[str | int, ...] = ()) -> Model:
    """Validate plain data against a model. Raises ProblemError 422."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise of_validation(error, where) from error


def parse_json(body: bytes) -> Any:
    """Parse JSON strictly by RFC 8259, and refuse anything that parsers interpret differently.

    Raises:
        ProblemError: 400 for invalid JSON; 422 for NaN, infinities and duplicate names.
    """
    try:
        return json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise _malformed("it is nested too deeply") from None
    except ValueError as error:  # also UnicodeDecodeError, and integers with more digits than Python parses
        raise _malformed(str(error)) from None


def media_type(request: Request) -> str:
    """Return the media type without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read(request: Request) -> bytes:
    try:
        return b"".join([chunk async for chunk in request.stream()])  # request.body() would keep a copy
    except ClientDisconnect:
        raise gone() from None


def gone() -> ProblemError:
    """Return the problem that ends a request whose client has left; it is never read."""
    return ProblemError(400, "client_gone", "the client closed the connection before its request was complete")


async def _read_form(request: Request) -> ScoreCall:
    try:
        form = await request.form(max_files=1, max_fields=1, max_part_size=_REQUEST_PART_BYTES)
    except ClientDisconnect:
        raise gone() from None
    except (HTTPException, MultiPartException) as error:
        detail = error.detail if isinstance(error, HTTPException) else error.message
        raise ProblemError(400, "form_invalid", f"the form cannot be read: {detail}") from None
    try:
        unknown = sorted(set(form) - {"image", "request"})
        if unknown:
            raise _form_error(f"unknown part {unknown[0][:80]!r}; a form has only the parts image (a file) and request")
        file, document = form.get("image"), form.get("request")
        if not isinstance(file, UploadFile):
            raise _form_error("the part image is not a file; send the image with a file name")
        if document is None:
            raise _form_error("the part request is missing; send the JSON of /v1/score without image")
        text = await document.read() if isinstance(document, UploadFile) else document.encode("utf-8", "surrogatepass")
        options = validate(ScoringOptions, parse_json(text), ("request",))
        return ScoreCall(RequestImage(uploaded=await file.read()), options)
    finally:
        await form.close()


def _form_error(message: str) -> ProblemError:
    return ProblemError(422, "form_invalid", message)


def _unsupported(request: Request, wanted: str) -> ProblemError:
    return ProblemError(
        415, "media_type", f"the content type is {request.headers.get('content-type', '')[:80]!r}; send {wanted}"
    )


def _malformed(reason: str) -> ProblemError:
    return ProblemError(400, "json_invalid", f"the body is not JSON: {reason[:200]}")


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ProblemError(422, "json_duplicate", "an object in the body has a duplicate name; give each name once")
    return found


def _no_constant(name: str) -> float:
    raise ProblemError(422, "json_not_finite", f"the body contains {name}, which is not valid JSON; use null")


def _finite(text: str) -> float:
    value = float(text)
    if abs(value) > sys.float_info.max:
        raise ProblemError(
            422, "json_not_finite", f"the number {text[:40]} is beyond the range of float64; send a smaller one"
        )
    return value
