"""Predict the sizes to which an image processor resizes an image, exactly.

A JPEG can be decoded at a half, a quarter or an eighth of its size. That is harmless if the processor would shrink the
image below that size anyway, and to the very same sizes: they decide the grid, and so the tokens. Where nobody has read
how a processor resizes, or where its output also holds the image's own size, there is no prediction.

tests/scorer/families/test_targets.py compares the predictions with what the processors do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from scorer.families.resizing import Resizing, area_sides, pads_to_a_square, side_multiple, tile_canvas

Sides = tuple[int, int]
"""(width, height), in pixels."""

Targets = Callable[[Resizing], tuple[Sides, ...] | None]
"""(image before its processor) → every size to which the processor resizes the image itself; None if unknown."""


def unknown_targets(image: Resizing) -> None:
    """Predict nothing."""
    return


def to_size(image: Resizing) -> tuple[Sides, ...] | None:
    """Predict ``PilBackend.resize`` to a width and a height or to a shortest edge, and Pixtral's to a longest."""
    width, height = image.edge("size", "width"), image.edge("size", "height")
    shortest, longest = image.edge("size", "shortest_edge"), image.edge("size", "longest_edge")
    if not image.setting("do_resize") or pads_to_a_square(image):
        return None
    if image.setting("patch_size"):
        return _to_patches(image, longest) if longest else None
    if shortest and not longest:
        short, long = sorted((image.width, image.height))
        other = int(shortest * long / short)
        return ((shortest, other) if image.width <= image.height else (other, shortest),)
    return ((width, height),) if width and height and not shortest else None


def _to_patches(image: Resizing, longest: int) -> tuple[Sides, ...]:
    height, width = _own(image)(_shape(image), size=longest, patch_size=side_multiple(image))
    return ((width, height),)


def to_area(image: Resizing) -> tuple[Sides, ...] | None:
    """Predict Qwen-VL's ``smart_resize``."""
    return (area_sides(image),) if image.setting("do_resize") else None


def to_tiles(image: Resizing) -> tuple[Sides, ...] | None:
    """Predict InternVL's canvas of tiles, and its overview of one tile."""
    if not image.setting("crop_to_patches"):
        return to_size(image)
    canvas, tile = tile_canvas(image), (image.edge("size", "width"), image.edge("size", "height"))
    return (canvas,) if canvas == tile else (canvas, tile)


def to_longest_edge(image: Resizing) -> tuple[Sides, ...] | None:
    """Predict the first resize of Idefics3 and SmolVLM, from which all others follow."""
    longest = image.edge("size", "longest_edge")
    if not image.setting("do_resize") or not longest:
        return None
    height, width = _own(image)(_shape(image), resolution_max_side=longest)
    return ((width, height),)


def to_size_without_crops(image: Resizing) -> tuple[Sides, ...] | None:
    """Predict Gemma 3's resize, unless it also takes crops, whose sizes follow from the image's."""
    return None if image.setting("do_pan_and_scan") else to_size(image)


def _own(image: Resizing) -> Callable[..., tuple[int, int]]:
    """Return the image processor's own function for the size of its result: (height, width)."""
    own: Callable[..., tuple[int, int]] = sys.modules[
        type(image.processor.image_processor).__module__
    ].get_resize_output_image_size
    return own


def _shape(image: Resizing) -> Any:
    """Return an image of that shape in which every pixel is the same byte of memory."""
    return np.broadcast_to(np.uint8(0), (3, image.height, image.width))
