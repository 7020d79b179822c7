"""Settings of every property test, and who runs what when the suite runs in several processes."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# The time of one example says nothing on a shared machine.
settings.register_profile("tokensight", deadline=None)
settings.load_profile("tokensight")

RAY = "ray"

if "PYTEST_XDIST_WORKER" in os.environ:  # one core each: a second thread would only wait for the first
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A module stays in one process, whose fixtures it shares; all of Ray is one group, and begins first.

    One cluster at a time: several would fight for the cores. First, because it is the longest.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") != pytest.mark.xdist_group(RAY).mark)
