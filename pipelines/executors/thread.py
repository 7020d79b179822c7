"""A thread that can be left behind: a process that ends does not wait for it, as it would for a pool's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Final, TypeVar

T = TypeVar("T")
_END: Final = None


class LeavableThread:
    """Runs calls one after the other."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="units", daemon=True).start()

    def submit(self, call: Callable[..., T], *args: Any) -> Future[T]:
        """The call's result in time, or what it raised."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                result = call(*args)
            except BaseException as error:  # whatever it is, it is the caller's
                future.set_exception(error)
            else:
                future.set_result(result)

        self._calls.put(run)
        return future

    def close(self) -> None:
        """Let the thread end after the call that it is at."""
        self._calls.put(_END)

    def _serve(self) -> None:
        while (run := self._calls.get()) is not _END:
            run()
            del run  # with what it holds
