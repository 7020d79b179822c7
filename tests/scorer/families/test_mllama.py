"""Llama 3.2 Vision: no image tokens, so contrasts that speak of them are refused; the plain path for the rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scorer import TokenScores
from scorer.errors import ModelError
from scorer.families import Family
from scorer.forward import score_full_forwards
from scorer.weights import Method
from tests.scorer.families.checkpoints import mllama
from tests.scorer.families.harness import FamilySuite, encode, error, one_at_a_time, text_only
from tests.scorer.families.samples import Case, caption, two_turns


class TestMllama(FamilySuite):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory: pytest.TempPathFactory) -> Case:
        path = mllama.make(tmp_path_factory.mktemp("mllama"))
        return Case(path=path, special_tokens=mllama.SPECIALS, nested_images=True)

    @pytest.mark.parametrize("contrast", ["masked", "removed"])
    def test_scores_without_the_image_are_those_of_the_class(self, case: Case, contrast: str) -> None:
        with pytest.raises(ModelError, match=rf"{contrast}.*mllama.*blank"):
            case.load(contrast)

    def test_a_text_only_row_is_what_the_class_makes_of_its_text(self, case: Case) -> None:
        """It is not known to run without an image: such a row is kept, without scores."""
        samples = text_only(case)
        for result in case.shared().score(samples):
            assert isinstance(result, TokenScores)
            assert result.text_only
            assert len(result.token_ids) > 0
            assert np.isnan([result.logit_gap, result.logprob_clean, result.logprob_contrast]).all()
            assert Method("prior")(result).tolist() == [1.0] * len(result.token_ids)

    def test_rows_have_different_numbers_of_tiles(self, case: Case) -> None:
        rows = encode(case.load(), case.rows())
        assert len({int(row.clean.pixels["aspect_ratio_mask"].sum()) for row in rows}) > 2

    def test_without_its_cross_attention_mask_padding_tiles_are_seen(self, case: Case) -> None:
        scorer = case.load()
        sample = two_turns()
        right = score_full_forwards(scorer.model, encode(scorer, [sample]))
        scorer.encoder.family = replace(scorer.encoder.family, sample_inputs=Family().sample_inputs)
        assert error(score_full_forwards(scorer.model, encode(scorer, [sample])), right) > 0.001

    def test_the_picture_matters(self, case: Case) -> None:
        scorer = case.load()
        ((clean, blank),) = score_full_forwards(scorer.model, encode(scorer, [caption("a", (30, 50), "A red kite.")]))
        assert abs(clean.logprob - blank.logprob).max() > 0.001

    def test_padding_images_that_text_can_see_would_be_seen(self, case: Case) -> None:
        """Text ahead of the image sees images of padding, so rows of different counts must not share a pass."""
        scorer = case.load()
        rows = encode(scorer, [caption("one", (30, 50), "A kite."), two_turns()])
        alone = one_at_a_time(scorer, rows)
        assert error(score_full_forwards(scorer.model, rows), alone) <= case.tolerance
        scorer.model.family = replace(scorer.model.family, unpadded=())
        assert error(score_full_forwards(scorer.model, rows), alone) > 0.001
