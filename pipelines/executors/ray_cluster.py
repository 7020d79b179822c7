"""The Ray cluster that a run joins, or starts on this machine."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

import ray
import ray.data

from pipelines.executors.resources import ClusterSize
from scorer.errors import ConfigError

LOCAL_CPUS: Final = 4
"""Logical CPUs of a cluster that is started here, at least: below that, nothing is left beside an actor."""


def connect(address: str | None = None) -> None:
    """Join the cluster at ``address`` or ``RAY_ADDRESS`` (which ``ray job submit`` sets), else start one here."""
    set_up_ray_data()
    if ray.is_initialized():
        return
    try:
        if address is not None or os.environ.get("RAY_ADDRESS"):
            ray.init(address=address)
            return
        _let_workers_import()
        # "local" and not the default: that would join whatever cluster was last started on this machine.
        cpus = max(LOCAL_CPUS, os.cpu_count() or 1)
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError) as error:
        where = address or os.environ.get("RAY_ADDRESS") or "this machine"
        raise ConfigError(f"no Ray cluster at {where}: {error}; check the address, or leave it out") from error


def cluster_size() -> ClusterSize:
    """The connected cluster's logical resources."""
    resources = ray.cluster_resources()
    return ClusterSize(resources.get("CPU", 0.0), resources.get("GPU", 0.0))


def set_up_ray_data() -> None:
    """Leave progress to this program: Ray Data's bars count blocks, which mean nothing to a reader."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # else the cause arrives as text
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # "progress bars disabled"
    # A worker's error reaches us whole, and is reported once.
    logging.getLogger("ray.data._internal.execution.streaming_executor_state").setLevel(logging.CRITICAL)


def _let_workers_import() -> None:
    """Workers of a cluster that is started here inherit this process's environment: show them this package."""
    root = str(Path(__file__).resolve().parents[2])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if root not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, paths)])
