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
"""What an image processor may make of any image, in pixels: as much as Qwen3-VL's makes of a large one. It may make
more only of an image that has as many pixels itself, and was accepted for them."""


def check_side(name: str, width: int, height: int) -> None:
    """Refuse an image with a side that no image for a model has. Raises RowError ``image_shape``."""
    if max(width, height) > MAX_SIDE:
        raise RowError(
            FailureCode.IMAGE_SHAPE,
            f"{name} has {width}×{height} pixels, more than {MAX_SIDE} on one side; cut it into pieces or shrink it",
        )


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
    if pixels > max(MAX_PROCESSED_PIXELS, width * height):
        raise RowError(
            FailureCode.IMAGE_SHAPE,
            f"an image of {width}×{height} pixels would become up to {pixels} pixels in the model's image processor, "
            f"more than {MAX_PROCESSED_PIXELS} and more than it has; crop it, or pad it to a less elongated shape",
        )
