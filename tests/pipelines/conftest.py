from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines.helpers import write_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"
