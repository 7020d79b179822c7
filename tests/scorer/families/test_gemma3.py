"""Gemma 3: token types, a placeholder that is not the image token, sliding windows, a soft-cap that is not applied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scorer.families import Family
from scorer.forward import score_full_forwards
from scorer.forward.model import ForwardRow, ReferenceModel
from tests.scorer.families.checkpoints import gemma3
from tests.scorer.families.harness import FamilySuite, ScoreSuite, encode, error, fast_error
from tests.scorer.families.samples import Case, caption


def case_of(path: Path) -> Case:
    return Case(path=path, special_tokens=gemma3.SPECIALS, nested_images=True)


class TestGemma3(FamilySuite):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory: pytest.TempPathFactory) -> Case:
        return case_of(gemma3.make(tmp_path_factory.mktemp("gemma3")))

    def test_without_token_types_the_image_is_causal(self, case: Case) -> None:
        scorer = case.load()
        rows = encode(scorer, [caption("a", (30, 50), "A red kite.")])
        right = score_full_forwards(scorer.model, rows)
        scorer.model.family = replace(scorer.model.family, token_inputs=Family().token_inputs)
        assert error(score_full_forwards(scorer.model, rows), right) > 0.01

    def test_the_configuration_s_softcap_would_be_seen(self, case: Case) -> None:
        scorer = case.load()
        assert scorer.checkpoint.config.get_text_config().final_logit_softcapping == 2.0
        rows = encode(scorer, [caption("a", (30, 50), "A red kite.")])
        right = score_full_forwards(scorer.model, rows)
        scorer.model._softcap = 2.0
        assert error(score_full_forwards(scorer.model, rows), right) > 0.01

    def test_the_tokens_around_an_image_stay(self, case: Case) -> None:
        scorer = case.load("removed")
        (row,) = encode(scorer, [caption("a", (30, 50), "A red kite.")])
        tokenizer = scorer.encoder._processor.tokenizer
        around = [tokenizer.boi_token_id, tokenizer.eoi_token_id]
        ids = row.contrast.input_ids
        assert np.isin(ids, around).sum() == 2
        assert not np.isin(ids, tokenizer.image_token_id).any()
        keep = ~np.isin(ids, around)
        index = (np.cumsum(keep) - 1)[row.contrast.label_index]
        bare = replace(row.contrast, input_ids=ids[keep], attend=row.contrast.attend[keep], label_index=index)
        right = score_full_forwards(scorer.model, [row])
        assert error(score_full_forwards(scorer.model, [replace(row, contrast=bare)]), right) > 0.01


class TestSlidingWindow(ScoreSuite):
    """A window that is shorter than most rows."""

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory: pytest.TempPathFactory) -> Case:
        return case_of(gemma3.make(tmp_path_factory.mktemp("gemma3-sliding"), sliding_window=24))

    def test_masked_without_its_hidden_tokens_would_be_seen(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = [caption("a", (30, 50), "A red kite over two boats. " * 3)]
        text_only = ReferenceModel.text_only

        def moved_up(self: ReferenceModel, row: ForwardRow) -> ForwardRow:
            short = text_only(self, row)
            return replace(short, places=np.arange(len(short.ids)))

        assert fast_error(case.load("masked"), rows) <= case.tolerance
        monkeypatch.setattr(ReferenceModel, "text_only", moved_up)
        assert fast_error(case.load("masked"), rows) > 0.01

    def test_a_window_over_an_image_s_block_would_be_seen(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = [caption("a", (30, 50), "A red kite over two boats. " * 3)]
        scorer = case.load()
        scorer.model.family = replace(scorer.model.family, blocks=None)
        assert fast_error(scorer, rows) > 0.01
