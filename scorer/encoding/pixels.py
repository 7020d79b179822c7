"""Decide whether pixels may travel as bytes, and build the table that normalises them on the model's device.

An image processor resizes, crops, pads and tiles bytes. In most processors the remaining steps are pointwise: a
rescaled and normalised value depends only on its channel and byte, so a table of 3 × 256 values is enough. The
processor itself computes the table, so its values are equal to the last bit, in whatever order and precision.

    image → resize, crop, pad, tile → uint8 → rescale, normalise → float32 → model      the processor's own path
                                      uint8 ────── to the device ──── table → model     the same values

A processor that pads with zeros *after* normalising (Mllama, for missing tiles) is not pointwise. Nothing is taken on
trust: both paths are compared on synthetic images when a model is loaded, and if they differ, the first one is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scorer.checkpoint.processor import IMAGE_BACKEND
from scorer.encoding.image_processing import ProcessedImage, process_images
from scorer.errors import RowError
from scorer.families import Family
from scorer.types import BytePixels, Float32Array, PixelArray

if TYPE_CHECKING:
    from PIL.Image import Image

_SIZES: Final = ((256, 100), (100, 256), (40, 30))
"""A wide, a tall and a small image; no side is a multiple of the usual tiles, so processors must pad or tile."""


def pixel_table(processor: Any, family: Family) -> Float32Array | None:
    """Return the normalised value of every byte, float32 [3, 256] by channel; None if pixels must stay floats.

    Pixels must stay the processor's own floats if byte and channel do not decide the value, if the model has no
    verified record, or if the image processor does not use transformers' PIL backend, whose last two steps are methods
    that can be skipped.
    """
    image_processor = processor.image_processor
    if not family.pixel_names or getattr(image_processor, "backend", None) != IMAGE_BACKEND:
        return None
    table = _normalised_levels(image_processor)
    images = [_gradients(*size) for size in _SIZES]
    samples = [*([image] for image in images), *([images] if family.joint_images else [])]
    return table if all(_paths_agree(processor, family, sample, table) for sample in samples) else None


def _normalised_levels(image_processor: Any) -> Float32Array:
    """Run the processor's own last steps on every byte; return float32 [3, 256]."""
    levels = np.tile(np.arange(256, dtype=np.uint8), (3, 1, 1))  # [3, 1, 256], an image of one line
    if image_processor.do_rescale:
        levels = image_processor.rescale(levels, image_processor.rescale_factor)
    if image_processor.do_normalize:
        levels = image_processor.normalize(levels, image_processor.image_mean, image_processor.image_std)
    return np.ascontiguousarray(levels[:, 0], dtype=np.float32)


def _paths_agree(processor: Any, family: Family, images: list[Image], table: Float32Array) -> bool:
    try:
        ours = process_images(processor, family, images, table)
        theirs = process_images(processor, family, images)
    except RowError:
        return False  # the synthetic images are refused, so nothing is known; the dataset's may still be accepted
    return all(_equal(*pair) for pair in zip(ours, theirs, strict=True))


def _equal(ours: ProcessedImage, theirs: ProcessedImage) -> bool:
    """Return whether the images are equal bit for bit and ours has pixels kept as bytes."""
    return (
        any(isinstance(array, BytePixels) for array in ours.pixels.values())
        and ours.replacement == theirs.replacement
        and {n: _content(a) for n, a in ours.pixels.items()} == {n: _content(a) for n, a in theirs.pixels.items()}
    )


def _content(pixels: PixelArray) -> tuple[Any, ...]:
    array = np.asarray(pixels)
    return array.shape, array.dtype, array.tobytes()


def _gradients(width: int, height: int) -> Image:
    """Draw an image with every level in every channel and no two channels alike."""
    from PIL import Image

    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, 255 - down, (across + down) / 2], axis=-1).round().astype(np.uint8))
