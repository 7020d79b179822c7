"""Gemma 3: an image's tokens see each other in both directions; its class applies no logit soft-cap."""

import numpy as np

from scorer.families.base import Family
from scorer.families.resizing import with_crops
from scorer.families.targets import to_size_without_crops
from scorer.types import Int64Array


def image_token_types(ids: Int64Array, first_label: int, image_token_id: int) -> dict[str, Int64Array]:
    """Return 1 for image tokens and 0 for text."""
    return {"token_type_ids": (ids == image_token_id).astype(ids.dtype)}


def image_blocks(ids: Int64Array, first_label: int, image_token_id: int) -> Int64Array:
    """Return one block for each run of image tokens, as the class makes of the token types."""
    image = ids == image_token_id
    starts = image & ~np.concatenate([[False], image[:-1]])
    return np.where(image, np.cumsum(starts) - 1, -1)


GEMMA3 = Family(
    processed_pixels=with_crops,
    targets=to_size_without_crops,
    uniform_blank=True,
    token_inputs=image_token_types,
    blocks=image_blocks,
)
