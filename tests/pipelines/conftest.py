from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.pipelines.helpers import make_job, run, write_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(scope="session")
def sound_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run's output, to be read only."""
    root = tmp_path_factory.mktemp("sound")
    run(make_job(write_dataset(root / "data"), root / "out"))
    return root / "out"


@pytest.fixture
def copy(sound_output: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(sound_output, tmp_path / "copy"))
