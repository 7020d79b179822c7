"""A process that may die: it scores rows one by one, and says which one before it touches it.

``python -m pipelines.executors.isolation.row_worker FD`` is started by :mod:`pipelines.executors.isolation.process`,
which holds the other end of the connection. It is sent the work once, then units of one row; for each it answers with
the row's id as soon as that is read, then with its result. It ends when the other end is closed, also because whoever
held it died.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from pipelines.output.plan import Unit
from pipelines.run.score_unit import UnitWork, encode_rows, score_rows
from scorer.errors import RunError, TokensightError


def serve(connection: Connection) -> None:
    """Answer until the other end is closed. An exception is answered like a result, and ends the process."""
    with suppress(EOFError, BrokenPipeError):
        try:
            _answer(connection)
        except TokensightError as error:
            connection.send(error)
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:  # which may not survive the way
            logging.getLogger(__name__).exception("scoring row by row failed")
            connection.send(RunError(f"scoring row by row failed: {type(error).__name__}: {error}"))


def _answer(connection: Connection) -> None:
    work: UnitWork = connection.recv()
    encoder, scorer = work.engine.encoder(), work.engine.scorer()
    connection.send(None)
    while True:
        unit: Unit = connection.recv()
        rows = work.source.read(unit.shard, unit.start, unit.stop)
        connection.send(rows[0].sample_id)
        connection.send(score_rows(encode_rows(rows, encoder), scorer)[0])


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
