"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scorer.families.cases import case_of
from tests.scorer.families.harness import FamilySuite
from tests.scorer.families.samples import Case


class TestQwen2VL(FamilySuite):
    @pytest.fixture
    def case(self, checkpoint: Callable[[Any], Path]) -> Case:
        return case_of("qwen2_vl", checkpoint)


class TestQwen25VL(FamilySuite):
    @pytest.fixture
    def case(self, checkpoint: Callable[[Any], Path]) -> Case:
        return case_of("qwen2_5_vl", checkpoint)


class TestQwen3VL(FamilySuite):
    @pytest.fixture
    def case(self, checkpoint: Callable[[Any], Path]) -> Case:
        return case_of("qwen3_vl", checkpoint)
