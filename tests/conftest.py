"""Settings of every property test, and who runs what when the suite runs in several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# The time of one example says nothing on a shared machine.
settings.register_profile("tokensight", deadline=None)
settings.load_profile("tokensight")

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
    """Ray first: it is the longest, and must not be what is waited for at the end."""
    items.sort(key=lambda item: together(item.nodeid) != "ray")


@pytest.hookimpl(optionalhook=True)  # where pytest-xdist is installed
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the processes what runs together, in the order of collection."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    config.option.loadscopereorder = False  # the order is made above
    return Together(config, log)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the cluster behind the last test that needs it: idle, it takes a tenth of a core."""
    if together(item.nodeid) == "ray" and (nextitem is None or together(nextitem.nodeid) != "ray"):
        import ray

        ray.shutdown()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """One Ray cluster for every test that needs one; yields its address."""
    import ray

    paths = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), paths]))  # workers import the tests' engines
    try:
        context = ray.init(
            address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False
        )
    finally:
        if paths is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = paths
    yield context.address_info["gcs_address"]
    ray.shutdown()
