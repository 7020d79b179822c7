"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: any grid of patches, positions in three axes."""

import numpy as np

from scorer.families.base import Family
from scorer.families.resizing import by_area
from scorer.families.targets import to_area
from scorer.types import Int64Array


def modalities(ids: Int64Array, first_label: int, image_token_id: int) -> dict[str, Int64Array]:
    """Return 1 for image tokens, 0 for text. ``get_rope_index`` needs it: without it Qwen2.5-VL is silently wrong."""
    return {"mm_token_type_ids": (ids == image_token_id).astype(np.int64)}


QWEN_VL = Family(
    pixel_names=("pixel_values", "image_grid_thw"),
    processed_pixels=by_area,
    targets=to_area,
    uniform_blank=True,
    token_inputs=modalities,
    rope_index=True,
)
