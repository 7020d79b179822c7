"""Join a Ray cluster, or start one on this machine."""

from __future__ import annotations

import logging
import os
import signal
import site
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import ray
from ray.job_config import JobConfig

from pipelines.executors.resources import ClusterSize
from scorer.errors import ConfigError

_SUBMITTED: Final = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable that ``ray job submit`` sets for the job's driver."""
LOCAL_CPUS: Final = 4
"""Minimum number of logical CPUs of a cluster started here: fewer would leave none beside an actor."""


def connect(address: str | None = None) -> None:
    """Join the cluster at ``address`` or ``RAY_ADDRESS`` (which ``ray job submit`` sets), or else start one here.

    Raises:
        ConfigError: there is no cluster at that address, or none can be started here.
    """
    if ray.is_initialized():
        return
    try:
        # A submitted job's workers import from the working directory that was submitted with it.
        paths = None if _SUBMITTED in os.environ else _OwnPaths()
        with _keeping_sigterm():
            if address is not None or os.environ.get("RAY_ADDRESS"):
                ray.init(address=address, job_config=paths)
                return
            # "local", because the default would join whatever cluster was last started on this machine.
            cpus = max(LOCAL_CPUS, os.cpu_count() or 1)
            quiet = {"include_dashboard": False, "logging_level": logging.ERROR}
            ray.init(address="local", job_config=paths, num_cpus=cpus, **quiet)
    except (ConnectionError, ValueError) as error:
        where = address or os.environ.get("RAY_ADDRESS") or "this machine"
        raise ConfigError(
            f"no Ray cluster at {where}: {error}; check the address (--ray-address, RAY_ADDRESS), or leave it out to "
            "start a cluster on this machine"
        ) from error


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Keep this process's handler of SIGTERM: Ray's exits with status 15, and says nothing."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def cluster_size() -> ClusterSize:
    """Return the connected cluster's logical resources."""
    resources = ray.cluster_resources()
    return ClusterSize(resources.get("CPU", 0.0), resources.get("GPU", 0.0))


class _OwnPaths(JobConfig):  # type: ignore[misc]  # ray is untyped
    """The paths that workers import from: their site-packages, and this package's checkout if it runs from one.

    By default, Ray puts the driver's working directory first, where a user's ``service/`` or ``pipelines/`` would
    shadow ours. It does not do so for a job that has a working directory in its runtime environment.
    """

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        installed = root in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), site.getusersitepackages()}
        super().__init__(_py_driver_sys_path=[] if installed else [root])

    def _runtime_env_has_working_dir(self) -> bool:
        return True
