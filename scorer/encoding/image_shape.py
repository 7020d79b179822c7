"""Refuse an image whose shape would cost more than its pixels, before it is decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from scorer.errors import FailureCode, RowError
from scorer.families import Family
from scorer.families.resizing import Resizing

CheckShape = Callable[[int, int], None]
"""(width, height of the upright image) → nothing; raises RowError if the image must not be processed."""

MAX_SIDE: Final = 2**17
"""Limit of an image's longer side, in pixels. Each row costs time of its own: a PNG of 25 megapixels takes less than a
second to decode as a square, and 12 seconds as one column."""

MAX_PROCESSED_PIXELS: Final = 2**24
"""What an image processor may make of any image, in pixels: as much as Qwen3-VL's makes of a large one."""


def check_side(name: str, width: int, height: int) -> None:
    """Refuse an image with a side that no image for a model has. Raises RowError ``image_shape``."""
    if max(width, height) > MAX_SIDE:
        raise RowError(
            FailureCode.IMAGE_SHAPE,
            f"{name} has {width}×{height} pixels, more than {MAX_SIDE} on one side; cut it into pieces or shrink it",
        )


def processed_limit(width: int, height: int) -> int:
    """Return what an image processor may make of an image of this size, in pixels.

    It may always make as many as the image has, which was accepted for them; and a fourth more, because sides are
    rounded up to whole patches.
    """
    return max(MAX_PROCESSED_PIXELS, width * height) * 5 // 4


def check_processed(
    processor: Any, options: Mapping[str, Any], family: Family, width: int, height: int, *, several: bool
) -> None:
    """Refuse an image of which the image processor would make too many pixels.

    Args:
        processor: the model's processor.
        options: what it calls its image processor with.
        width, height: of the upright image, in pixels.
        several: whether the sample has more images.

    Raises:
        RowError: ``image_shape``.
    """
    pixels = family.processed_pixels(Resizing(processor, options, width, height, several))
    limit = processed_limit(width, height)
    if pixels > limit:
        raise RowError(
            FailureCode.IMAGE_SHAPE,
            f"an image of {width}×{height} pixels would become up to {pixels} pixels in the model's image processor, "
            f"more than the {limit} allowed for its size; crop it, or pad it to a less elongated shape",
        )
