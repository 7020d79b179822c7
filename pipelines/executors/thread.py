"""Run calls in a thread that can be abandoned: unlike a pool's, it does not keep the process from exiting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Final, TypeVar

T = TypeVar("T")
_END: Final = None


class AbandonableThread:
    """Runs calls one after the other in a daemon thread."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="units", daemon=True).start()

    def submit(self, call: Callable[..., T], *args: Any) -> Future[T]:
        """Queue a call. Return a future of its result, or of what it raises."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                result = call(*args)
            except BaseException as error:  # passed to the caller, whatever it is
                future.set_exception(error)
            else:
                future.set_result(result)

        self._calls.put(run)
        return future

    def close(self) -> None:
        """Let the thread end after the current call."""
        self._calls.put(_END)

    def _serve(self) -> None:
        while (run := self._calls.get()) is not _END:
            run()
            del run  # frees the call's arguments while the thread waits
