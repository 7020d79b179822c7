"""Whether pixels may travel as bytes, and the table that normalises them on the model's device.

An image processor resizes, crops, pads and tiles bytes. What follows in most is pointwise: a rescaled and normalised
value depends on its channel and its byte alone, so 3 × 256 values say all. They are the processor's own arithmetic,
hence equal to the last bit whatever order and precision it computes in.

    picture → resize, crop, pad, tile → uint8 → rescale, normalise → float32 → model       the processor's way
                                        uint8 ────── to the device ──── table → model      the same values

A processor that pads with zeros *behind* normalising (Mllama's missing tiles) is not pointwise. Nothing is taken on
trust: the ways are compared on made-up pictures when a model is loaded, and where they differ the first one is taken.
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
"""Wide, high and small, no side a multiple of the usual tiles: processors that pad or tile do it here."""


def pixel_table(processor: Any, family: Family) -> Float32Array | None:
    """The normalised value of every byte, float32 [3, 256] by channel.

    None where pixels must be the processor's own floats: where a byte and its channel do not decide the value; where
    the image processor is of another kind than transformers' PIL backend, whose two last steps are methods and can be
    left out; and for a model without a verified record.
    """
    image_processor = processor.image_processor
    if not family.pixel_names or getattr(image_processor, "backend", None) != IMAGE_BACKEND:
        return None
    table = _normalised_levels(image_processor)
    pictures = [_gradients(*size) for size in _SIZES]
    samples = [*([picture] for picture in pictures), *([pictures] if family.joint_images else [])]
    return table if all(_ways_agree(processor, family, sample, table) for sample in samples) else None


def _normalised_levels(image_processor: Any) -> Float32Array:
    """float32 [3, 256], by the processor's own steps."""
    levels = np.tile(np.arange(256, dtype=np.uint8), (3, 1, 1))  # [3, 1, 256], an image of one line
    if image_processor.do_rescale:
        levels = image_processor.rescale(levels, image_processor.rescale_factor)
    if image_processor.do_normalize:
        levels = image_processor.normalize(levels, image_processor.image_mean, image_processor.image_std)
    return np.ascontiguousarray(levels[:, 0], dtype=np.float32)


def _ways_agree(processor: Any, family: Family, images: list[Image], table: Float32Array) -> bool:
    try:
        ours = process_images(processor, family, images, table)
        theirs = process_images(processor, family, images)
    except RowError:
        return False  # made-up pictures are refused, so nothing is known; the dataset's may be taken
    return all(_equal(*pair) for pair in zip(ours, theirs, strict=True))


def _equal(ours: ProcessedImage, theirs: ProcessedImage) -> bool:
    """Bit for bit, and with bytes among them."""
    return (
        any(isinstance(array, BytePixels) for array in ours.pixels.values())
        and ours.replacement == theirs.replacement
        and {n: _content(a) for n, a in ours.pixels.items()} == {n: _content(a) for n, a in theirs.pixels.items()}
    )


def _content(pixels: PixelArray) -> tuple[Any, ...]:
    array = np.asarray(pixels)
    return array.shape, array.dtype, array.tobytes()


def _gradients(width: int, height: int) -> Image:
    """Every level in every channel, and no two channels alike."""
    from PIL import Image

    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, 255 - down, (across + down) / 2], axis=-1).round().astype(np.uint8))
