"""Load something when an actor starts, but fail when it is used: Ray reports a constructor's error only as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Loaded(Generic[T]):
    """What ``make`` returned, or the error that it raised."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._error: Exception | None = None
        try:
            self._made = make()
        except Exception as error:
            self._error = error

    def get(self) -> T:
        """Return what was made. Raise what making it raised."""
        if self._error is not None:
            raise self._error
        return self._made
