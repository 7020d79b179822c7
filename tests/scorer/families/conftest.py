"""Checkpoints are made once; assertions of the shared harness explain themselves like a test's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.scorer.families.harness")

Make = Callable[[Path], Path]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Make], Path]:
    """Builder → directory of its checkpoint, made at first use."""

    @cache
    def made(make: Make) -> Path:
        return make(tmp_path_factory.mktemp("checkpoint"))

    return made
