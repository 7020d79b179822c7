"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: any grid of patches, positions in three axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from scorer.families.base import Family, TowerInputs
from scorer.families.resizing import by_area
from scorer.families.targets import to_area
from scorer.types import Int64Array, PixelArray

_GRIDS: Final = "image_grid_thw"


def modalities(ids: Int64Array, first_label: int, image_token_id: int) -> dict[str, Int64Array]:
    """Return 1 for image tokens, 0 for text. ``get_rope_index`` needs it: without it Qwen2.5-VL is silently wrong."""
    return {"mm_token_type_ids": (ids == image_token_id).astype(np.int64)}


def tower_inputs(model: Any, images: Sequence[Mapping[str, PixelArray]]) -> TowerInputs:
    """Compute what the tower derives from the grids, with transformers' own functions.

    On the device, each would wait for the grids; window attention would make one call for each window.
    """
    import torch
    from transformers import vision_utils

    visual = model.model.visual
    config = visual.config
    grids = torch.from_numpy(np.concatenate([np.asarray(one[_GRIDS]) for one in images]))
    merge = config.spatial_merge_size
    boundaries = vision_utils.get_vision_cu_seqlens(grids)
    host = {_GRIDS: grids.numpy(), "image_cu_seqlens": boundaries.numpy()}
    found = {"image_position_ids": vision_utils.get_vision_position_ids(grids, merge)}
    if hasattr(config, "window_size"):
        index, windows = vision_utils.get_vision_window_index(grids, merge, config.window_size, config.patch_size)
        found["image_window_index"] = index
        host["image_cu_window_seqlens"] = windows.numpy()
    if hasattr(visual, "interpolation_mode"):
        taps = vision_utils.get_vision_interpolation_indices_and_weights(
            grids,
            visual.num_grid_per_side,
            mode=visual.interpolation_mode,
            align_corners=visual.interpolation_align_corners,
            spatial_merge_size=merge,
        )
        found |= dict(zip(("image_interp_indices", "image_interp_weights"), taps, strict=True))
    return TowerInputs(host, {name: tensor.numpy() for name, tensor in found.items()})


_LAYERS: Final = "model.language_model.layers.*"
SHARING: Final = {
    **{f"{_LAYERS}.self_attn.{name}_proj": "colwise" for name in "qkv"},
    f"{_LAYERS}.self_attn.o_proj": "rowwise",
    **{f"{_LAYERS}.mlp.{name}_proj": "colwise" for name in ("gate", "up")},
    f"{_LAYERS}.mlp.down_proj": "rowwise",
}
"""The plan of Qwen2.5-VL's decoder, which Qwen3-VL's class lacks; its norms of queries and keys are kept whole."""

QWEN_VL = Family(
    pixel_names=("pixel_values", _GRIDS),
    processed_pixels=by_area,
    targets=to_area,
    uniform_blank=True,
    token_inputs=modalities,
    rope_index=True,
    tower=tower_inputs,
    sharing=SHARING,
)
