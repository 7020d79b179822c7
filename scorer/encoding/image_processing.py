"""Turn one image into the model's inputs: its tensors, and the text that represents it in the prompt.

The model's own processor (:mod:`scorer.checkpoint.processor`) decides both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scorer.errors import FailureCode, RowError
from scorer.families import Family
from scorer.types import BytePixels, Float32Array, PixelArray, UniformPixels

if TYPE_CHECKING:
    from PIL.Image import Image

_NOT_NORMALISED: Final = {"do_rescale": False, "do_normalize": False}
"""The options that switch off an image processor's last two steps."""


@dataclass(frozen=True, slots=True, eq=False)
class ProcessedImage:
    """One image as the model receives it.

    Attributes:
        replacement: the text that replaces the image's placeholder in the prompt.
        pixels: the image processor's tensors by the model's argument names, each with a leading axis of images.
        digest: identifies ``pixels``; equal digests mean equal tensors.
    """

    replacement: str
    pixels: dict[str, PixelArray]
    digest: bytes

    @property
    def nbytes(self) -> int:
        """The memory that its tensors take, in bytes."""
        return sum(array.nbytes for array in self.pixels.values())


def process_images(
    processor: Any, family: Family, images: Sequence[Image], table: Float32Array | None = None
) -> list[ProcessedImage]:
    """Run the model's own image processor on one sample's images, together if the family requires it.

    Args:
        table: float32 [3, 256] from :func:`scorer.encoding.pixels.pixel_table`, to keep pixels as bytes; None for the
            processor's own floats.

    Raises:
        RowError: ``image_shape`` if the processor refuses an image (an extreme aspect ratio, say).
    """
    if len(images) == 1 or not family.joint_images:
        return [process_image(processor, family, image, table) for image in images]
    every, replacements = _run(processor, family, [list(images)], images, table)
    processed = []
    for i, replacement in enumerate(replacements):
        # Outputs that belong to the sample, such as the number of images, go with the first image.
        pixels = {n: array[i : i + 1] if array.shape[0] == len(images) else array[i:] for n, array in every.items()}
        processed.append(ProcessedImage(replacement, pixels, digest_of(pixels)))
    return processed


def image_options(processor: Any) -> dict[str, Any]:
    """Return the options that a processor calls its image processor with."""
    merged = processor._merge_kwargs(tokenizer_init_kwargs=processor.tokenizer.init_kwargs, return_tensors="np")
    return dict(merged["images_kwargs"])


def _run(
    processor: Any, family: Family, arranged: Sequence[Any], images: Sequence[Image], table: Float32Array | None
) -> tuple[dict[str, PixelArray], list[str]]:
    """Return the processor's tensors, and the text that represents each image."""
    if table is None:
        own, replacements = _outputs(processor, family, arranged, images, {})
        return dict(own), replacements
    raw, replacements = _outputs(processor, family, arranged, images, _NOT_NORMALISED)
    pixels = {name: kept for name, array in raw.items() if (kept := _as_bytes(array, table)) is not None}
    if len(pixels) < len(raw):
        # Some floats are not bytes: the processor treats this image differently from those the table was checked with.
        return _run(processor, family, arranged, images, None)
    return pixels, replacements


def _as_bytes(array: npt.NDArray[Any], table: Float32Array) -> PixelArray | None:
    """Return unnormalised pixels with their table, and indices unchanged; None for floats that are not bytes."""
    if array.dtype == np.uint8:
        return BytePixels(array, table)
    if not np.issubdtype(array.dtype, np.floating):
        return array
    if array.min() >= 0 and array.max() <= 255:
        levels = array.astype(np.uint8)  # Qwen-VL's processor cuts patches in float32
        if np.array_equal(levels, array):
            return BytePixels(levels, table)
    return None


def _outputs(
    processor: Any, family: Family, arranged: Sequence[Any], images: Sequence[Image], switches: Mapping[str, bool]
) -> tuple[dict[str, npt.NDArray[Any]], list[str]]:
    try:
        outputs, replacements = processor._process_images(arranged, **{**image_options(processor), **switches})
    except ValueError as error:
        sizes = ", ".join(f"{image.width} x {image.height}" for image in images)
        raise RowError(
            FailureCode.IMAGE_SHAPE,
            f"the model's image processor refuses an image of {sizes} pixels: {error}; crop, pad or enlarge it",
        ) from error
    names = family.pixel_names
    if names is None:
        names = tuple(name for name in outputs if name not in processor.unused_input_names)
    return {name: np.asarray(outputs[name]) for name in names if name in outputs}, replacements


def process_image(processor: Any, family: Family, image: Image, table: Float32Array | None = None) -> ProcessedImage:
    """Run the model's own image processor on one image.

    Args:
        table: as in :func:`process_images`.

    Raises:
        RowError: ``image_shape`` if the processor refuses the image's size, or makes too few tokens of it;
            ``image_unreadable`` if a tile would count as padding.
    """
    pixels, replacements = _run(processor, family, [image], [image], table)
    tokens = replacements[0].count(str(processor.image_token))
    if tokens < family.min_image_tokens:
        raise RowError(
            FailureCode.IMAGE_SHAPE,
            f"an image of {image.width} x {image.height} pixels takes {tokens} image tokens; the model's class needs "
            f"{family.min_image_tokens}: enlarge the image",
        )
    if family.zero_is_padding and not _every_tile_shows(pixels):
        raise RowError(
            FailureCode.IMAGE_UNREADABLE,
            f"a tile of an image of {image.width} x {image.height} pixels is processed to zeros, which the model "
            "treats as padding; give an image (or a --blank-color) that is not the mean colour of the image processor",
        )
    return ProcessedImage(replacements[0], pixels, digest_of(pixels))


def _every_tile_shows(pixels: Mapping[str, PixelArray]) -> bool:
    tiles = np.asarray(pixels["pixel_values"])  # [1, tiles, 3, H, W]
    return bool(tiles.any(axis=(-3, -2, -1)).all())


def join_pixels(images: Sequence[Mapping[str, PixelArray]], axis: int = 0) -> dict[str, PixelArray]:
    """Join images' tensors along ``axis``; in the other axes, smaller ones are padded with zeros at the end.

    Pixels that need padding become floats: models pad with zero, and no byte normalises to zero.
    """
    return {name: _join([image[name] for image in images], axis) for name in (images[0] if images else ())}


def _join(arrays: Sequence[PixelArray], axis: int) -> PixelArray:
    shape = np.max([array.shape for array in arrays], axis=0)
    room = [[(0, int(want - got)) for want, got in zip(shape, a.shape, strict=True)] for a in arrays]
    for widths in room:
        widths[axis] = (0, 0)
    kept = [array for array in arrays if isinstance(array, BytePixels)]
    if len(kept) == len(arrays) and not np.any(room):
        return BytePixels(np.concatenate([array.values for array in kept], axis=axis), kept[0].table)
    uniform = [array for array in arrays if isinstance(array, UniformPixels)]
    if len(uniform) == len(arrays) and not np.any(room) and len({one.color.tobytes() for one in uniform}) == 1:
        shape[axis] = sum(array.shape[axis] for array in uniform)
        return UniformPixels(tuple(map(int, shape)), uniform[0].color)
    padded = [np.pad(np.asarray(a), widths) for a, widths in zip(arrays, room, strict=True)]
    return np.concatenate(padded, axis=axis)


def digest_of(pixels: Mapping[str, PixelArray]) -> bytes:
    """Return a digest of arrays' names, shapes, dtypes and contents; a table counts as part of its pixels."""
    digest = hashlib.blake2b(digest_size=16)
    for name, array in sorted(pixels.items()):
        if isinstance(array, UniformPixels):
            digest.update(f"{name}{array.shape} of one colour".encode())
            digest.update(array.color.data)
            continue
        for part in (array.values, array.table) if isinstance(array, BytePixels) else (array,):
            digest.update(f"{name}{part.shape}{part.dtype}".encode())
            digest.update(np.ascontiguousarray(part).data)
    return digest.digest()
