"""Make blanks without drawing them, where the image processor's settings allow it.

If a processor only resizes, crops and cuts tiles, a blank stays of one colour, and the rest of what it returns depends
on the grid alone. So the blank of an image is that image's own tensors, with every pixel replaced by one colour:

    image → processor → pixels [1, 3, 336, 336], …  →  blank: (the same shape, one colour), …

A processor that pads makes different blanks for different shapes. A family's record says which kind it has
(:attr:`scorer.families.base.Family.uniform_blank`), and when a checkpoint is loaded, that is compared with what its
processor makes of drawn blanks; if they differ, blanks are drawn and processed like images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scorer.encoding.image_processing import ProcessedImage, digest_of, process_image
from scorer.errors import RowError
from scorer.families import Family
from scorer.types import BytePixels, Float32Array, PixelArray, UniformPixels

if TYPE_CHECKING:
    from PIL.Image import Image

_SIZES: Final = ((256, 100), (100, 256), (40, 30), (1100, 900))
"""A wide, a tall, a small and a large image; no side is a multiple of the usual tiles or patches."""


def uniform_color(
    processor: Any, family: Family, draw: Callable[[tuple[int, int]], Image], table: Float32Array | None
) -> Float32Array | None:
    """Return the normalised colour of every blank, float32 [3]; None if blanks must be drawn.

    Args:
        processor: the model's processor.
        family: its record.
        draw: (width, height) → the blank image.
        table: as in :func:`scorer.encoding.image_processing.process_images`.
    """
    if not family.uniform_blank:
        return None
    color: Float32Array | None = None
    for size in _SIZES:
        try:
            image = process_image(processor, family, _not_blank(size), table)
            drawn = process_image(processor, family, draw(size))
        except RowError:
            return None  # an image that is refused shows nothing, or the blank counts as padding
        if color is None:
            color = _color(drawn)
        if color is None or not _same(as_blank(image, color), drawn):
            return None
    return color


def _not_blank(size: tuple[int, int]) -> Image:
    from PIL import Image

    return Image.linear_gradient("L").resize(size).convert("RGB")


def as_blank(image: ProcessedImage, color: Float32Array) -> ProcessedImage:
    """Return the blank of an image's size: its tensors, with every pixel of one normalised colour, float32 [3]."""
    pixels = {n: UniformPixels(a.shape, color) if _is_pixels(a) else a for n, a in image.pixels.items()}
    return ProcessedImage(image.replacement, pixels, digest_of(pixels))


def compact(image: ProcessedImage) -> ProcessedImage:
    """Return a drawn image with its pixels kept as one colour if they have one, else unchanged."""
    color = _color(image)
    if color is None:
        return image
    blank = as_blank(image, color)
    return blank if _same(blank, image) else image


def _is_pixels(array: PixelArray) -> bool:
    return isinstance(array, (BytePixels, UniformPixels)) or np.issubdtype(array.dtype, np.floating)


def _color(image: ProcessedImage) -> Float32Array | None:
    """Return each channel's first value, float32 [3]; None without pixels in a known layout."""
    for array in image.pixels.values():
        if _is_pixels(array) and len(array.shape) in (2, 4, 5):
            area = array.shape[-1] // 3 if len(array.shape) == 2 else array.shape[-2] * array.shape[-1]
            by_channel = np.asarray(array[:1]).reshape(-1, 3, area)
            return np.ascontiguousarray(by_channel[0, :, 0], dtype=np.float32)
    return None


def _same(ours: ProcessedImage, theirs: ProcessedImage) -> bool:
    """Return whether replacements and tensors are equal, these bit for bit."""
    return (
        ours.replacement == theirs.replacement
        and ours.pixels.keys() == theirs.pixels.keys()
        and all(_same_bits(np.asarray(a), np.asarray(theirs.pixels[n])) for n, a in ours.pixels.items())
    )


def _same_bits(ours: Any, theirs: Any) -> bool:
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        return False
    return bool((np.ascontiguousarray(ours).view(np.uint8) == np.ascontiguousarray(theirs).view(np.uint8)).all())
