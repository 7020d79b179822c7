"""Follow the leader of a model whose weights several processes share; see :mod:`scorer.ranks`.

Started by the leader as ``python -m scorer.rank_process FD``, where FD is its end of the pipe.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Final

from scorer.errors import explain
from scorer.ranks import EndOfRows, Outcome, Request, Row, RowsFailed, RowsFailedError, Start, join, joined_store

if TYPE_CHECKING:
    from scorer.engine import Scorer

_POLL: Final = 1.0


def main() -> None:
    """Load the model with the other ranks, then do what the leader asks until it closes the pipe."""
    # Ctrl-C in a terminal reaches every process; the leader's message is enough. What takes long to import, such as
    # torch, is therefore imported later.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _end_with(os.getppid())
    connection = Connection(int(sys.argv[1]))
    try:
        scorer = _loaded(connection)
        scorers = {scorer.config.contrasts: scorer}
        while True:
            request: Request = connection.recv()
            if request.contrasts not in scorers:
                scorers[request.contrasts] = scorer.with_contrast(*request.contrasts)
            connection.send(_answer(scorers[request.contrasts], request, connection))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the leader has ended, or no longer needs this process


def _loaded(connection: Connection) -> Scorer:
    import torch
    from transformers.utils.logging import disable_progress_bar

    from scorer.checkpoint.files import Checkpoint
    from scorer.checkpoint.loading import resolve_device
    from scorer.engine import Scorer

    disable_progress_bar()  # the leader shows one for all
    start: Start = connection.recv()
    torch.set_num_threads(start.threads)
    os.environ["LOCAL_RANK"] = str(start.rank)  # transformers reads it to choose the device
    connection.send(True)
    count = start.config.tensor_parallel
    join(joined_store(start.port, count), start.rank, count, resolve_device(start.config.device))
    try:
        scorer = Scorer(Checkpoint.locate(start.path), start.config, follows=True)
    except Exception as error:
        connection.send(_outcome(error, ""))
        raise
    connection.send(_outcome(None, scorer.path))
    return scorer


def _answer(scorer: Scorer, request: Request, connection: Connection) -> Outcome:
    rows = _received(connection)
    try:
        if request.method == "score_encoded":
            scorer.score_encoded(list(rows))
        else:
            scorer.score_batches(rows, *request.arguments)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:  # the leader compares it with its own outcome
        return _outcome(error, scorer.path)
    return _outcome(None, scorer.path)


def _received(connection: Connection) -> Iterator[Row]:
    while True:
        message = connection.recv()
        if isinstance(message, RowsFailed):
            raise RowsFailedError
        if isinstance(message, EndOfRows):
            return
        yield message
        del message  # frees its pixels while the next one is waited for


def _outcome(error: Exception | None, path: str) -> Outcome:
    return Outcome("", path) if error is None else Outcome(type(error).__name__, path, explain(error))


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, even if it waits for the parent in a reduction."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL)
        os._exit(1)

    threading.Thread(target=watch, name="leader", daemon=True).start()


if __name__ == "__main__":
    main()
