"""Idefics3 and SmolVLM: images as rows of tiles, padded over a batch with tiles of zeros."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scorer.encoding import image_processing
from scorer.errors import FailureCode
from scorer.forward import score_full_forwards
from scorer.results import Failure
from tests.scorer.families.checkpoints import idefics3
from tests.scorer.families.harness import FamilySuite, encode
from tests.scorer.families.samples import Case, caption


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return idefics3.make_idefics3(tmp_path_factory.mktemp("idefics3"))


def with_black_mean(path: Path, copy: Path) -> Path:
    """The checkpoint, but black is what its image processor makes zeros of."""
    shutil.copytree(path, copy)
    file = copy / "processor_config.json"
    options = json.loads(file.read_text())
    options["image_processor"]["image_mean"] = [0.0, 0.0, 0.0]
    file.write_text(json.dumps(options))
    return copy


class TestIdefics3(FamilySuite):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, path: Path) -> Case:
        return Case(path=path, special_tokens=idefics3.SPECIALS, nested_images=True)

    def test_rows_have_different_numbers_of_tiles(self, case: Case) -> None:
        rows = encode(case.load(), case.rows())
        assert len({row.clean.pixels["pixel_values"].shape[1] for row in rows}) > 1

    def test_a_tile_of_zeros_is_refused_because_the_model_drops_it(
        self, path: Path, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A blank must go through the processor; what it makes zeros of would be taken for padding."""
        black = replace(case, path=with_black_mean(path, tmp_path / "black"))
        encoder = black.encoder()
        assert encoder.pixel_table is not None
        assert not encoder.pixel_table[:, 0].any()
        result = encoder.try_encode(caption("zeros", (30, 50), "A kite."))
        assert isinstance(result, Failure)
        assert result.code is FailureCode.IMAGE_UNREADABLE
        assert "zeros" in result.message
        # without the guard the model itself fails, and takes the whole batch with it
        monkeypatch.setattr(image_processing, "_every_tile_shows", lambda pixels: True)
        scorer = black.load()
        with pytest.raises((ValueError, RuntimeError, IndexError)):
            score_full_forwards(scorer.model, encode(scorer, [caption("zeros", (30, 50), "A kite.")]))

    def test_padding_tiles_that_show_would_be_seen(self, case: Case) -> None:
        """Negative control of the batch parity: tiles of padding that are not zero are taken for image."""
        scorer = case.load()
        rows = encode(scorer, [caption("a", (30, 50), "A kite.")])
        pixels = {name: np.asarray(values) for name, values in rows[0].clean.pixels.items()}
        pixels = {name: np.concatenate([v, np.ones_like(v[:, :1])], axis=1) for name, v in pixels.items()}
        padded = [replace(rows[0], clean=replace(rows[0].clean, pixels=pixels))]
        with pytest.raises((ValueError, RuntimeError)):
            score_full_forwards(scorer.model, padded)


class TestSmolVLM(FamilySuite):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory: pytest.TempPathFactory) -> Case:
        path = idefics3.make_smolvlm(tmp_path_factory.mktemp("smolvlm"))
        return Case(path=path, special_tokens=idefics3.SPECIALS, nested_images=True)

    def test_images_are_written_as_by_its_own_processor(self, case: Case) -> None:
        """Its own processor cannot be made without num2words: its methods are asked without making it."""
        from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor, get_image_prompt_string

        ours = case.load().encoder._processor
        assert type(ours).__name__ == "Idefics3Processor"
        assert SmolVLMProcessor.images_kwargs == type(ours).images_kwargs
        for rows, columns in ((0, 0), (1, 2), (2, 2)):
            theirs = get_image_prompt_string(rows, columns, 4, "<fake_token_around_image>", "<image>", "<global-img>")
            written = ours.replace_image_token({"rows": [[rows]], "cols": [[columns]]}, 0)
            assert written == theirs
