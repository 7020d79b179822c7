"""One loaded model for every test of the service."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from service.scorer_pool import ScorerPool
from tests.service.helpers import Live, app_of, serving, settings


@pytest.fixture(scope="session")
def models() -> ScorerPool:
    """The packaged model with every contrast."""
    return ScorerPool.load(settings())


@pytest.fixture(scope="session")
def client(models: ScorerPool) -> Iterator[TestClient]:
    """The application without a server; its errors are answers, as they are behind one."""
    with TestClient(app_of(models), raise_server_exceptions=False) as client:
        wait_until_ready(client)
        yield client


@pytest.fixture(scope="session")
def live(models: ScorerPool) -> Iterator[Live]:
    """The application behind uvicorn."""
    with serving(app_of(models)) as live:
        yield live


def wait_until_ready(client: TestClient) -> None:
    until = time.monotonic() + 60
    while client.get("/health/ready").status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.01)
