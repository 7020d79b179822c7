from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.helpers import make_job, run, write_dataset

ROOT = Path(__file__).resolve().parents[2]


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
