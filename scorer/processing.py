"""One image → what the model takes of it: its tensors, and the text that stands for it in the prompt.

The model's own processor decides both. A processor that also handles videos refuses to load without torchvision;
its image part does not need it, so the processor is put together without its video part.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scorer.errors import FailureCode, ModelError, RowError
from scorer.families import Family
from scorer.text import TextProcessor
from scorer.types import BytePixels, Float32Array, PixelArray

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_BACKEND: Final = "pil"
"""Image-processing backend. Pinned: torchvision's resize gives other pixels, hence other scores (up to 0.028)."""

_NOT_NORMALISED: Final = {"do_rescale": False, "do_normalize": False}
"""An image processor's options for pixels as they are before its two last steps."""

_IMPORTING: Final = Lock()


@dataclass(frozen=True, slots=True, eq=False)
class ProcessedImage:
    """One image as the model takes it.

    Attributes:
        replacement: the text that takes the place of the image's placeholder in the prompt.
        pixels: the image processor's tensors by the model's argument names, each with a leading axis of images.
        digest: identifies ``pixels``; equal digests are equal tensors.
    """

    replacement: str
    pixels: dict[str, PixelArray]
    digest: bytes


def load_processor(path: Path, model_type: str, family: Family) -> Any:
    """The processor of a model directory, with the pinned image backend and without its video part.

    Raises:
        ModelError: a part is missing or does not load.
    """
    if family.text_only:
        return _with_fast_tokenizer(TextProcessor.load(path, family.template_without_chat), path)
    try:
        processor_class = _class_itself(_processor_class(path, model_type, family))
        options, _ = processor_class.get_processor_dict(path)
        parts = [_load_part(processor_class, name, path) for name in processor_class.get_attributes()]
        processor = _without_missing_parts(processor_class, family).from_args_and_dict(parts, options)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        raise ModelError(f"the processor of the model in {path} cannot be loaded: {error}") from error
    _with_fast_tokenizer(processor, path)
    if getattr(processor, "image_token", None) is None:
        raise ModelError(f"the processor {type(processor).__name__} of the model in {path} names no image token")
    processor.chat_template = family.template or processor.chat_template or processor.tokenizer.chat_template
    if not processor.chat_template:
        raise ModelError(f"the model in {path} has no chat template; use its instruction-tuned variant")
    return processor


def _with_fast_tokenizer(processor: Any, path: Path) -> Any:
    if getattr(processor.tokenizer, "backend_tokenizer", None) is None:
        raise ModelError(f"the model in {path} has no fast tokenizer; byte spans need one (tokenizer.json)")
    return processor


def _class_itself(processor_class: Any) -> Any:
    """The class that transformers hides behind a stand-in because torchvision is missing.

    Such a class (Pixtral's) imports a helper from its torchvision image processor; the PIL one has the same.
    """
    if type(processor_class).__name__ != "DummyObject":
        return processor_class
    folder = processor_class.__module__.rpartition("processing_")[2]
    package = f"transformers.models.{folder}"
    wanted = f"{package}.image_processing_{folder}"
    with _IMPORTING:
        sys.modules[wanted] = import_module(f"{package}.image_processing_pil_{folder}")
        try:
            return getattr(import_module(f"{package}.processing_{folder}"), processor_class.__name__)
        finally:
            del sys.modules[wanted]


def _processor_class(path: Path, model_type: str, family: Family) -> Any:
    """The family's, else the class that the files name, else the one that transformers lists for the model type."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES, processor_class_from_name

    if family.processor is not None:
        return processor_class_from_name(family.processor)
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        file = path / name
        named = json.loads(file.read_text()).get("processor_class") if file.is_file() else None
        if named is not None:
            return processor_class_from_name(named)
    if model_type not in PROCESSOR_MAPPING_NAMES:
        raise ModelError(f"the model in {path} names no processor class, and its type {model_type!r} has none")
    return processor_class_from_name(PROCESSOR_MAPPING_NAMES[model_type])


def _load_part(processor_class: Any, name: str, path: Path) -> Any:
    from transformers import AutoImageProcessor

    if name == "image_processor":
        return AutoImageProcessor.from_pretrained(path, backend=IMAGE_BACKEND, trust_remote_code=False)
    if "tokenizer" in name:
        return processor_class._load_tokenizer_from_pretrained(name, path, trust_remote_code=False)
    return None  # video and audio


def _without_missing_parts(processor_class: Any, family: Family) -> Any:
    """A subclass that accepts None for a part that is not needed."""

    def check_argument_for_proper_class(self: Any, name: str, part: Any) -> Any:
        return None if part is None else processor_class.check_argument_for_proper_class(self, name, part)

    # Under the same name: transformers looks at it.
    attributes: dict[str, Any] = {"check_argument_for_proper_class": check_argument_for_proper_class}
    image_text = family.image_text
    if image_text is not None:
        attributes["replace_image_token"] = lambda self, *args, **kwargs: image_text(self)
    return type(processor_class.__name__, (processor_class,), attributes)


def process_images(
    processor: Any, family: Family, images: Sequence[Image], table: Float32Array | None = None
) -> list[ProcessedImage]:
    """Run the model's own image processor on one sample's images, together where the family wants it.

    Args:
        table: float32 [3, 256] of :func:`scorer.pixels.pixel_table`, to keep pixels as bytes; None for the processor's
            own floats.

    Raises:
        RowError: ``image_unreadable`` where the processor refuses an image (an extreme aspect ratio, say).
    """
    if len(images) == 1 or not family.joint_images:
        return [process_image(processor, family, image, table) for image in images]
    every, replacements = _run(processor, family, [list(images)], images, table)
    processed = []
    for i, replacement in enumerate(replacements):
        # What belongs to the sample and not to an image, such as the number of images, goes with the first.
        pixels = {n: array[i : i + 1] if array.shape[0] == len(images) else array[i:] for n, array in every.items()}
        processed.append(ProcessedImage(replacement, pixels, digest_of(pixels)))
    return processed


def _run(
    processor: Any, family: Family, arranged: Sequence[Any], images: Sequence[Image], table: Float32Array | None
) -> tuple[dict[str, PixelArray], list[str]]:
    """The processor's tensors, and the text that stands for each image."""
    if table is None:
        own, replacements = _outputs(processor, family, arranged, images, {})
        return dict(own), replacements
    raw, replacements = _outputs(processor, family, arranged, images, _NOT_NORMALISED)
    pixels = {name: kept for name, array in raw.items() if (kept := _as_bytes(array, table)) is not None}
    if len(pixels) < len(raw):
        # Neither bytes nor normalised: this image goes another way than those that the table was checked with.
        return _run(processor, family, arranged, images, None)
    return pixels, replacements


def _as_bytes(array: npt.NDArray[Any], table: Float32Array) -> PixelArray | None:
    """Pixels that are not normalised with their table, indices as they are; None for floats that are no bytes."""
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
    options = processor._merge_kwargs(tokenizer_init_kwargs=processor.tokenizer.init_kwargs, return_tensors="np")
    try:
        outputs, replacements = processor._process_images(arranged, **options["images_kwargs"] | switches)
    except ValueError as error:
        sizes = ", ".join(f"{image.width} x {image.height}" for image in images)
        raise RowError(
            FailureCode.IMAGE_UNREADABLE,
            f"the model's image processor refuses an image of {sizes} pixels: {error}",
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
        RowError: ``image_unreadable`` where the processor refuses the image (an extreme aspect ratio, say).
    """
    pixels, replacements = _run(processor, family, [image], [image], table)
    tokens = replacements[0].count(str(processor.image_token))
    if tokens < family.min_image_tokens:
        raise RowError(
            FailureCode.IMAGE_UNREADABLE,
            f"an image of {image.width} x {image.height} pixels takes {tokens} image tokens; the model's class needs "
            f"{family.min_image_tokens}: enlarge the image",
        )
    if family.zero_is_padding and not _every_tile_shows(pixels):
        raise RowError(
            FailureCode.IMAGE_UNREADABLE,
            f"a tile of an image of {image.width} x {image.height} pixels is processed to zeros, which the model takes "
            "for padding; give an image (or a --blank-color) that is not the mean colour of the image processor",
        )
    return ProcessedImage(replacements[0], pixels, digest_of(pixels))


def _every_tile_shows(pixels: Mapping[str, PixelArray]) -> bool:
    tiles = np.asarray(pixels["pixel_values"])  # [1, tiles, 3, H, W]
    return bool(tiles.any(axis=(-3, -2, -1)).all())


def join_pixels(images: Sequence[Mapping[str, PixelArray]], axis: int = 0) -> dict[str, PixelArray]:
    """Join images' tensors along ``axis``, smaller ones padded with zeros behind in the others.

    Pixels that need padding become floats: a model's padding is zero, which no byte is normalised to.
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
    padded = [np.pad(np.asarray(a), widths) for a, widths in zip(arrays, room, strict=True)]
    return np.concatenate(padded, axis=axis)


def digest_of(pixels: Mapping[str, PixelArray]) -> bytes:
    """Identifies arrays by names, shapes, dtypes and contents, a table's contents being part of its pixels'."""
    digest = hashlib.blake2b(digest_size=16)
    for name, array in sorted(pixels.items()):
        for part in (array.values, array.table) if isinstance(array, BytePixels) else (array,):
            digest.update(f"{name}{part.shape}{part.dtype}".encode())
            digest.update(np.ascontiguousarray(part).data)
    return digest.digest()
