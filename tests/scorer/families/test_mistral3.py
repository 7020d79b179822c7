"""Mistral 3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scorer.families.cases import case_of
from tests.scorer.families.harness import FamilySuite
from tests.scorer.families.samples import Case


class TestMistral3(FamilySuite):
    @pytest.fixture
    def case(self, checkpoint: Callable[[Any], Path]) -> Case:
        return case_of("mistral3", checkpoint)
