"""The images of training: what contrasts show is made as the engine makes it."""

import random
from typing import Any

import numpy as np
import pytest
from transformers import AutoProcessor

from scorer.mini import MODEL_PATH
from scorer.mini.inputs import ALTERED, BLANK, INPUTS, SHOWN, training_image
from scorer.mini.packaging import IMAGE_SIZE
from scorer.mini.world import sample_scene, seeded
from scorer.mini.world.drawing import draw


def levels(pixels: Any) -> Any:
    return np.asarray(pixels).astype(int)


def test_every_kind_of_input_is_in_the_mix_and_most_are_shown() -> None:
    assert set(INPUTS) == {SHOWN, BLANK, *ALTERED}
    assert INPUTS.count(SHOWN) > len(INPUTS) / 2


@pytest.mark.parametrize("kind", [SHOWN, *ALTERED])
def test_an_image_is_seeded_and_has_the_models_size(kind: str) -> None:
    for k in range(20):
        scene = sample_scene(seeded("test inputs", k))
        made = [training_image(scene, kind, random.Random(k)) for _ in range(2)]
        assert made[0].shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
        assert made[0].dtype == np.uint8
        assert np.array_equal(*made)


def test_an_image_is_resized_as_the_processor_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scorer.mini.inputs.SIZES", (256,))
    processor = AutoProcessor.from_pretrained(MODEL_PATH).image_processor
    scene = sample_scene(seeded("test resizing"))
    passed_on = processor(draw(scene, 256), return_tensors="np")["pixel_values"][0]
    monkeypatch.setattr("scorer.mini.inputs.JPEG_SHARE", 0.0)
    image = training_image(scene, SHOWN, random.Random(0))
    expected = np.rint((passed_on.transpose(1, 2, 0) + 1) * 127.5)
    assert np.abs(levels(image) - expected).max() <= 1


@pytest.mark.parametrize("kind", ALTERED)
def test_a_contrast_changes_the_image(kind: str) -> None:
    changes = []
    for k in range(10):
        scene = sample_scene(seeded("test contrasts", k))
        shown, altered = (levels(training_image(scene, each, random.Random(k))) for each in (SHOWN, kind))
        changes.append(np.abs(shown - altered).mean())
    assert min(changes) > 1


def test_a_contrast_that_makes_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="'masked' makes no image; those that do are blur, noise"):
        training_image(sample_scene(seeded("test refusal")), "masked", random.Random(0))
