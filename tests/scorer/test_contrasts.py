"""What each contrast makes of an image or of its tokens, and what its record says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scorer.contrast_images import ContrastOptions, blank_image, blurred_image, noise_image
from scorer.contrasts import (
    CONTRASTS,
    DEFAULT,
    Capability,
    EditedTokens,
    hide_image_tokens,
    remove_image_tokens,
)
from scorer.errors import FailureCode, RowError
from scorer.families import FAMILIES, TEXT_ONLY, UNLISTED_VISION
from scorer.types import Branch
from tests.scorer.pictures import picture

IMAGES = ("blur", "noise", "patches", "diffusion", "downsample", "shuffled", "image")
OPTIONS = ContrastOptions(blank_color=(122, 116, 104), blur_radius=0.1, noise_seed=3)


def test_blank_has_the_size_and_one_colour() -> None:
    blank = blank_image((56, 40), OPTIONS)
    assert blank.size == (56, 40)
    assert (np.asarray(blank) == (122, 116, 104)).all()


def test_blur_is_relative_to_the_longer_side() -> None:
    edge = Image.new("RGB", (100, 60))
    edge.paste((255, 255, 255), (50, 0, 100, 60))
    enlarged = edge.resize((400, 240), Image.Resampling.NEAREST)
    small, large = blurred_image(edge, OPTIONS), blurred_image(enlarged, OPTIONS)
    assert large.size == (400, 240)
    profile = np.asarray(small)[30, :, 0].astype(int)
    wide = np.asarray(large)[120, :, 0].astype(int).reshape(100, 4).mean(1)
    assert np.abs(profile - wide).max() < 8
    # A Gaussian of σ = 10 pixels reaches 84 % one σ after the edge.
    assert profile[60] / 255 == pytest.approx(0.84, abs=0.04)
    assert (np.diff(profile) >= 0).all()


def test_noise_depends_on_seed_and_size() -> None:
    noise = noise_image((56, 40), OPTIONS)
    assert noise.tobytes() == noise_image((56, 40), OPTIONS).tobytes()
    assert noise.tobytes() != noise_image((56, 40), replace(OPTIONS, noise_seed=4)).tobytes()
    assert noise.tobytes()[:99] != noise_image((40, 56), OPTIONS).tobytes()[:99]
    values = np.bincount(np.frombuffer(noise_image((200, 200), OPTIONS).tobytes(), np.uint8), minlength=256)
    assert (values > 300).all() and (values < 640).all()  # uniform: 469 each


def test_noise_is_the_same_on_every_machine() -> None:
    noise = noise_image((2, 1), replace(OPTIONS, noise_seed=0))
    assert list(noise.tobytes()) == [134, 78, 182, 247, 51, 190]


@pytest.mark.parametrize("size", [(1, 1), (0, 0), (0, 3), (3, 0), (1, 7)])
def test_contrast_images_of_tiny_sizes(size: tuple[int, int]) -> None:
    assert blank_image(size, OPTIONS).size == size
    assert blurred_image(Image.new("RGB", size, (9, 9, 9)), OPTIONS).size == size
    assert noise_image(size, OPTIONS).size == size


def test_blur_leaves_its_image_alone() -> None:
    image = picture()
    before = image.tobytes()
    assert blurred_image(image, OPTIONS).tobytes() != before
    assert image.tobytes() == before


def test_image_tokens_are_hidden_or_taken_out() -> None:
    ids, is_image = np.array([5, 0, 0, 6, 7, 8]), np.array([False, True, True, False, False, False])
    clean = Branch(ids, np.ones(6, dtype=np.bool_), np.array([4, 5]), {"pixel_values": np.zeros((1, 3, 2, 2))}, b"x")
    hidden, removed = hide_image_tokens(clean, is_image), remove_image_tokens(clean, is_image)
    assert hidden.attend.tolist() == [True, False, False, True, True, True]
    assert hidden.input_ids is clean.input_ids and hidden.label_index is clean.label_index
    assert removed.input_ids.tolist() == [5, 6, 7, 8]
    assert removed.attend.all() and len(removed.attend) == 4
    assert removed.input_ids[removed.label_index].tolist() == ids[clean.label_index].tolist()
    assert (removed.pixels, removed.pixels_digest) == ({}, b"")


def branch_of(ids: list[int], labels: list[int]) -> Branch:
    return Branch(np.array(ids), np.ones(len(ids), dtype=np.bool_), np.array(labels), {}, b"")


@pytest.mark.parametrize(
    ("edit", "ids", "labels"),
    [
        (remove_image_tokens, [0, 0, 7, 8], [2, 3]),  # nothing is left before the text
        (hide_image_tokens, [0, 0, 7, 8], [2, 3]),
        (hide_image_tokens, [1, 0, 0, 7, 8], [3, 4]),  # BOS is seen, but the image's last token predicts
        (hide_image_tokens, [1, 7, 0, 8], [1, 3]),  # a later turn
    ],
)
def test_a_contrast_that_leaves_nothing_to_predict_a_label_from_is_undefined(
    edit: Callable[[Branch, Any], Branch], ids: list[int], labels: list[int]
) -> None:
    branch = branch_of(ids, labels)
    with pytest.raises(RowError, match="'blank'") as found:
        edit(branch, branch.input_ids == 0)
    assert found.value.code is FailureCode.CONTRAST_UNDEFINED


def test_a_label_after_a_removed_image_is_predicted_by_what_stands_before_the_image() -> None:
    branch = branch_of([1, 0, 0, 7, 0, 8], [3, 5])
    removed = remove_image_tokens(branch, branch.input_ids == 0)
    assert (removed.input_ids.tolist(), removed.label_index.tolist()) == ([1, 7, 8], [1, 2])


def test_a_branch_without_a_token_that_predicts_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        branch_of([7, 8], [0, 1])
    with pytest.raises(ValueError, match="position 2 is hidden"):
        replace(branch_of([1, 0, 7], [2]), attend=np.array([True, False, True]))


def test_every_record_stands_under_its_own_name_and_words() -> None:
    records = CONTRASTS.values()
    assert list(CONTRASTS) == [record.name for record in records]
    assert DEFAULT in CONTRASTS
    for words in ("phrase", "description"):
        assert len({getattr(record, words) for record in records}) == len(CONTRASTS)
    for record in records:
        assert record.phrase and record.description and record.needs
        # What its tokens say of the image is lost: a model must be able to run without them.
        assert not isinstance(record.how, EditedTokens) or Capability.TEXT_ALONE in record.needs


def test_families_have_the_contrasts_that_their_capabilities_allow() -> None:
    assert FAMILIES["llava"].contrasts == ("blank", "masked", "removed", *IMAGES)
    assert FAMILIES["mllama"].contrasts == ("blank", *IMAGES)
    assert UNLISTED_VISION.contrasts == ("blank", "removed", *IMAGES)
    assert TEXT_ONLY.contrasts == ("removed",)
