"""Llama 3.2 Vision: text attends to image tiles through dedicated layers; no token represents an image feature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from scorer.contrasts import Capability
from scorer.families.base import Family
from scorer.families.resizing import to_a_canvas
from scorer.types import Int64Array, PixelArray, Turn


def cross_attention_mask(
    processor: Any, turns: Sequence[Turn], ids: Int64Array, pixels: Mapping[str, PixelArray]
) -> dict[str, npt.NDArray[Any]]:
    """Return which tiles each token may attend to, int64 [1, T, images, tiles], as the model's processor does."""
    from transformers.models.mllama import processing_mllama as own

    tiles = np.asarray(pixels["aspect_ratio_mask"])  # [1, images, tiles]
    places = own.get_cross_attention_token_mask(ids.tolist(), processor.image_token_id)
    mask = own.convert_sparse_cross_attention_mask_to_dense(
        [places], tiles.sum(axis=-1).tolist(), max_num_tiles=tiles.shape[-1], length=len(ids)
    )
    return {"cross_attention_mask": mask}


MLLAMA = Family(
    pixel_names=("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask"),
    processed_pixels=to_a_canvas,
    image_axis=1,
    sample_inputs=cross_attention_mask,
    # Text before the first image attends to all images of the batch's largest sample: the class masks what follows
    # the attention, not the attention itself.
    unpadded=("pixel_values",),
    # There are no image tokens to hide or remove.
    capabilities=frozenset({Capability.IMAGES}),
    fast=False,
)
