"""The sacrificial process: it scores a unit, or one row, and reports that row's id before it encodes and scores it.

``python -m pipelines.executors.isolation.row_worker FD`` is started by :mod:`pipelines.executors.isolation.process`,
which holds the other end of the connection. It receives the work once, then one request after another:

- a unit of one row: it sends the row's id once the row is read, then the result;
- a unit, the known failures of its rows, and its reduced token budget, if any: it sends a ScoredUnit.

It watches each step itself, as every worker does, and ends itself when one hangs, even if its parent is gone. It exits
when the other end is closed, including by its parent's death.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from pipelines.executors.isolation.heartbeat import Heartbeat, WatchedEncoder, WatchedScorer, end_process_on_hang
from pipelines.run.encoding import encode_rows
from pipelines.run.score_unit import UnitWork
from pipelines.run.scoring import score_rows
from scorer.errors import RunError, TokensightError


def serve(connection: Connection) -> None:
    """Answer until the other end is closed. An exception is sent like a result, and ends the process."""
    with suppress(EOFError, BrokenPipeError):
        try:
            _answer(connection)
        except TokensightError as error:
            connection.send(error)
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:  # sent as a RunError, because this one may not survive pickling
            logging.getLogger(__name__).exception("scoring in a separate process failed")
            connection.send(
                RunError(
                    f"scoring in a separate process failed: {type(error).__name__}: {error}; the log has its traceback"
                )
            )


def _answer(connection: Connection) -> None:
    work: UnitWork = connection.recv()
    heartbeat = Heartbeat(work.row_timeout)
    encoder = WatchedEncoder(work.engine.encoder(), heartbeat)
    scorer = WatchedScorer(work.engine.scorer(), heartbeat)
    end_process_on_hang(heartbeat)
    connection.send(None)
    while True:
        asked = connection.recv()
        if isinstance(asked, tuple):
            unit, known, cut = asked
            connection.send(work.score(unit, work.encode(unit, encoder, known), scorer, cut))
            continue
        rows = work.source.read(asked.shard, asked.start, asked.stop)
        connection.send(rows[0].sample_id)
        row = encode_rows(rows, encoder)
        connection.send(score_rows(row, scorer, work.engine.max_batch_tokens)[0])


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
