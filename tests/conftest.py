"""Settings of every property test, and who runs what when the suite runs in several processes."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import settings

from tests.ray_head import Head, started_head

ROOT = Path(__file__).resolve().parents[1]

# The time of one example says nothing on a shared machine.
settings.register_profile("tokensight", deadline=None)
settings.load_profile("tokensight")

os.environ["RAY_AUTH_MODE"] = "disabled"  # a token that another cluster left in the home directory is not this one's
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

if "PYTEST_XDIST_WORKER" in os.environ:  # one core each: a second thread would only wait for the first
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Ray's workers are nice to everything else: beside another process of the suite they would hardly run at all.
    os.environ.setdefault("RAY_worker_niceness", "0")


def together(nodeid: str) -> str:
    """What runs in one process, where it shares its fixtures: all of Ray, a folder of the service, else a module.

    One Ray cluster at a time: several would fight for the cores.
    """
    module = PurePosixPath(nodeid.partition("::")[0])
    if module.name.startswith("test_ray_"):
        return "ray"
    return str(module.parent if "service" in module.parts else module)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ray and the stores first: they are the longest, and must not be what is waited for at the end."""
    first = ("ray", "tests/stores/test_s3.py")
    items.sort(key=lambda item: first.index(scope) if (scope := together(item.nodeid)) in first else len(first))


gc.disable()  # while everything is imported: nothing of it is garbage


def pytest_collection_finish() -> None:
    """What was imported stays: a full collection, and trainers ask for many, need not walk through it again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)  # where pytest-xdist is installed
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the processes what runs together, in the order of collection."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    config.option.loadscopereorder = False  # the order is made above
    return Together(config, log)


_RAY = ExitStack()
"""What ends Ray."""


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the cluster behind the last test that needs it: idle, it takes a tenth of a core."""
    if together(item.nodeid) == "ray" and (nextitem is None or together(nextitem.nodeid) != "ray"):
        _RAY.close()


def pytest_runtest_logfinish(nodeid: str) -> None:
    """Let go of a failed pipeline: its actors hold their CPUs for as long as the log that pytest kept holds them."""
    if together(nodeid) == "ray":
        gc.collect()


def pytest_unconfigure() -> None:
    _RAY.close()  # the suite was interrupted


@pytest.fixture(scope="session")
def ray_head() -> Head:
    """The Ray head of every test that needs one."""
    return _RAY.enter_context(started_head(ROOT))  # its workers import the tests' engines


@pytest.fixture(scope="session")
def ray_cluster(ray_head: Head) -> str:
    """This process is a driver of the head; returns its address."""
    import ray

    ray.init(ray_head.address, logging_level="ERROR", log_to_driver=False)
    _RAY.callback(ray.shutdown)
    return ray_head.address
