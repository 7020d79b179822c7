"""DeepSeek-VL."""

from __future__ import annotations

import numpy as np
import pytest

from tests.scorer.families.checkpoints import deepseek_vl
from tests.scorer.families.harness import FamilySuite, encode
from tests.scorer.families.samples import Case, caption


class TestDeepseekVL(FamilySuite):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory: pytest.TempPathFactory) -> Case:
        path = deepseek_vl.make(tmp_path_factory.mktemp("deepseek"))
        return Case(path=path, special_tokens=deepseek_vl.SPECIALS)

    def test_a_blank_depends_on_the_image_s_shape_and_is_keyed_by_its_pixels(self, case: Case) -> None:
        """The processor's border has another colour than the mean, so blanks of other shapes are other prefixes."""
        scorer = case.load(blank_color=(200, 10, 10))
        wide, tall, large = encode(scorer, [caption("a", size, "A") for size in ((60, 30), (30, 60), (120, 60))])
        assert np.array_equal(wide.contrast.input_ids, tall.contrast.input_ids)
        assert wide.contrast.pixels_digest != tall.contrast.pixels_digest
        assert wide.contrast.pixels_digest == large.contrast.pixels_digest
