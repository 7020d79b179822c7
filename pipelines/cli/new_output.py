"""``--force-new-run``: if the output belongs to another run, start in a new folder beside it."""

from __future__ import annotations

import dataclasses
import itertools
import logging

from pipelines.cli.preflight import check_paths
from pipelines.output.store import open_store
from pipelines.run.job import Job, PreparedRun, prepare
from scorer.errors import OtherRunError

log = logging.getLogger(__name__)


def prepare_new_output(job: Job, *, write: bool = True) -> tuple[Job, PreparedRun]:
    """Prepare ``job`` in the first of ``OUTPUT``, ``OUTPUT-2``, ``OUTPUT-3``, … that is free or holds the same run.

    Repeating the command therefore resumes that run instead of starting another.

    Returns:
        The job with the output that was found, and the prepared run.

    Raises:
        ConfigError, ModelError, StoreError: As :func:`pipelines.run.job.prepare` does.
    """
    root = job.store.root
    for number in itertools.count(2):
        try:
            return job, prepare(job, write=write)
        except OtherRunError as error:
            numbered = f"{root}-{number}"
            check_paths(job.input, numbered)
            job = dataclasses.replace(job, store=open_store(numbered))
            log.warning("%s\nTrying %s instead.", error, numbered)
    raise AssertionError("the numbers never end")
