"""A driver process to be killed: ``python -m tests.pipelines.faults.ray_driver INPUT OUTPUT ADDRESS LOG``."""

from __future__ import annotations

import sys

from pipelines.executors.ray_actors import RayExecutor
from pipelines.executors.resources import ActorOptions
from pipelines.run.job import prepare
from tests.pipelines.helpers import RecordingWatch, make_job
from tests.pipelines.ray_engines import LoggingEngine

ROW_BYTES = 1 << 20
ROWS_PER_UNIT = 5

if __name__ == "__main__":
    input_, output, address, log = sys.argv[1:]
    engine = LoggingEngine(seconds_per_row=0.06, log=log, row_bytes=ROW_BYTES)
    # As with real pictures, encoding is but a few units ahead. Units that were encoded for two drivers that were killed
    # are tried row by row: were that all of them, no actor would be left to kill.
    ahead = 2 * ROWS_PER_UNIT * ROW_BYTES
    prepare(make_job(input_, output, engine, rows_per_unit=ROWS_PER_UNIT)).execute(
        RayExecutor(ActorOptions(actors=2), address, ahead), RecordingWatch()
    )
