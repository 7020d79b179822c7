"""A run that a row kills: ``python -m tests.pipelines.executors.isolation.deadly_driver INPUT OUTPUT WORD LOG``."""

from __future__ import annotations

import sys

from tests.pipelines.deadly_engine import DeadlyEngine
from tests.pipelines.helpers import make_job, run

if __name__ == "__main__":
    input_, output, word, log = sys.argv[1:]
    run(make_job(input_, output, DeadlyEngine(deadly=word, log=log)))
