"""LLaVA-OneVision: a single image is tiled, several images of one sample are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scorer.errors import FailureCode
from scorer.results import Failure
from scorer.types import IMAGE, Turn
from tests.scorer.families import oracle
from tests.scorer.families.cases import case_of
from tests.scorer.families.harness import FamilySuite
from tests.scorer.families.samples import Case, two_images


class TestLlavaOnevision(FamilySuite):
    @pytest.fixture
    def case(self, checkpoint: Callable[[Any], Path]) -> Case:
        return case_of("llava_onevision", checkpoint)

    def test_images_processed_one_by_one_would_be_tiled(self, case: Case) -> None:
        encoder = case.encoder()
        theirs = oracle.processor_inputs(case, case.load(), two_images(), two_images().images)["input_ids"][0].numpy()
        ours = encoder.encode(two_images()).clean.input_ids
        np.testing.assert_array_equal(ours, theirs[: len(ours)])
        encoder.family = replace(encoder.family, joint_images=False)
        apart = encoder.encode(two_images()).clean.input_ids
        assert np.count_nonzero(apart == encoder.image_token_id) > np.count_nonzero(ours == encoder.image_token_id)

    def test_an_image_behind_the_last_label_is_a_row_error(self, case: Case) -> None:
        sample = two_images()
        turns = (
            Turn("user", (IMAGE, "What?")),
            Turn("assistant", ("A kite.",)),
            Turn("user", (IMAGE, "And this?")),
        )
        result = case.encoder().try_encode(replace(sample, turns=turns))
        assert isinstance(result, Failure)
        assert result.code is FailureCode.CONVERSATION_INVALID
        assert "image 2 of 2" in result.message
