"""``--force-new-run``: where an output belongs to another run, begin in a folder beside it, never over it."""

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
    """:func:`pipelines.run.job.prepare` in the first of ``OUTPUT``, ``OUTPUT-2``, ``OUTPUT-3``, … that is free or was
    begun by an equal run: the same command given again goes on there, and does not begin another.

    Returns the job with the output that was found.

    Raises:
        ConfigError, ModelError, StoreError: as ``prepare`` does.
    """
    root = job.store.root
    for number in itertools.count(2):
        try:
            return job, prepare(job, write=write)
        except OtherRunError as error:
            numbered = f"{root}-{number}"
            check_paths(job.input, numbered)
            job = dataclasses.replace(job, store=open_store(numbered))
            log.warning("%s\nLooking at %s instead.", error, numbered)
    raise AssertionError("the numbers never end")
