"""One server with the packaged model, and one Chromium, for all tests of the page."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.scorer_pool import ScorerPool
from tests.service.helpers import KEY, app_of
from tests.service.page.browser import Browser, NoBrowserError
from tests.service.page.server import Server, running


@pytest.fixture(scope="session")
def server(models: ScorerPool) -> Iterator[Server]:
    with running(app_of(models)) as server:
        yield server


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Skips where there is no Chromium, and fails there if TOKENSIGHT_REQUIRED_BROWSER is set."""
    try:
        browser = Browser(tmp_path_factory.mktemp("chromium"))
    except NoBrowserError as error:
        if os.environ.get("TOKENSIGHT_REQUIRED_BROWSER"):
            raise
        pytest.skip(str(error))
    with browser:
        yield browser


@pytest.fixture
def locked_server(models: ScorerPool) -> Iterator[Server]:
    """A server that wants ``KEY``."""
    with running(app_of(models, api_keys=(KEY,))) as server:
        yield server


@pytest.fixture
def page(server: Server, chromium: Browser) -> Iterator[Browser]:
    """The page, freshly opened, on a desktop in light colours. In the end its console must be clean."""
    server.reset()
    chromium.open(server.url)
    yield chromium
    assert chromium.complaints() == []


@pytest.fixture
def run_shell() -> Callable[[str, Path], str]:
    """Run a command line as a shell does, in a folder: what it wrote to its standard output."""

    def run(command: str, folder: Path) -> str:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=folder,
            env={**os.environ, "API_KEY": KEY},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture on disk."""
    from service.page import assets

    path = tmp_path / "two blue triangles.png"
    path.write_bytes(assets()["samples/scene-00089.png"].body)
    return path
