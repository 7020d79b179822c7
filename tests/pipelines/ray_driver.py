"""A driver process for tests that kill it: ``python -m tests.pipelines.ray_driver INPUT OUTPUT ADDRESS``."""

from __future__ import annotations

import sys

from pipelines.executors.ray_data import RayDataExecutor
from pipelines.executors.resources import ActorOptions
from pipelines.fake_engine import FakeEngine
from pipelines.job import prepare
from tests.pipelines.helpers import RecordingWatch, make_job

SLOW = FakeEngine(seconds_per_row=0.06)

if __name__ == "__main__":
    input_, output, address = sys.argv[1:]
    prepare(make_job(input_, output, SLOW)).execute(RayDataExecutor(ActorOptions(actors=2), address), RecordingWatch())
