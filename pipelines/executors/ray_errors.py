"""Raise what a Ray worker raised, without Ray's wrapping, and tell it from the worker's death."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Final, TypeVar

import ray

from scorer.errors import RunError, TokensightError

log = logging.getLogger(__name__)

_EXIT: Final = re.compile(r"Worker exit detail: (.+)")
T = TypeVar("T")


def is_death(error: BaseException) -> bool:
    """Whether the error says that a worker, its node or what it held is gone, rather than what the worker raised."""
    return isinstance(error, ray.exceptions.RayError) and not isinstance(error, ray.exceptions.RayTaskError)


def cause_of_death(error: BaseException) -> str:
    """Say in one line what became of a worker."""
    detail = _EXIT.search(str(error))
    return type(error).__name__ if detail is None else f"{type(error).__name__}: {detail[1][:200]}"


@contextmanager
def readable_errors() -> Iterator[None]:
    """Raise what a worker raised, without Ray's wrapping."""
    try:
        yield
    except ray.exceptions.RayError as error:
        raise root_cause(error) from error


def translated(inner: Future[T]) -> Future[T]:
    """Return a future whose error is what the worker raised."""
    outer: Future[T] = Future()

    def done(future: Future[T]) -> None:
        error = future.exception()
        if error is None:
            outer.set_result(future.result())
        else:
            outer.set_exception(root_cause(error))

    inner.add_done_callback(done)
    return outer


def root_cause(error: BaseException) -> BaseException:
    """Return the worker's error if it is ours or the storage's; log anything else in full and return a RunError."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (TokensightError, OSError)) and not isinstance(seen, ray.exceptions.RayError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    log.error("a worker failed", exc_info=error)
    lines = [line for line in str(error).splitlines() if line.strip()]
    cause = lines[-1].strip() if lines else type(error).__name__
    return RunError(f"a worker failed: {cause}; the log has its traceback")
