"""One image → what the model takes of it: its tensors, and the text that stands for it in the prompt.

The model's own processor decides both. A processor that also handles videos refuses to load without torchvision;
its image part does not need it, so the processor is put together without its video part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scorer.errors import FailureCode, ModelError, RowError
from scorer.families import Family

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_BACKEND: Final = "pil"
"""Image-processing backend. Pinned: torchvision's resize gives other pixels, hence other scores (up to 0.028)."""


@dataclass(frozen=True, slots=True, eq=False)
class ProcessedImage:
    """One image as the model takes it.

    Attributes:
        replacement: the text that takes the place of the image's placeholder in the prompt.
        pixels: the image processor's tensors by the model's argument names, each with a leading axis of images.
        digest: identifies ``pixels``; equal digests are equal tensors.
    """

    replacement: str
    pixels: dict[str, npt.NDArray[Any]]
    digest: bytes


def load_processor(path: Path, model_type: str) -> Any:
    """The processor of a model directory, with the pinned image backend and without its video part.

    Raises:
        ModelError: a part is missing or does not load.
    """
    try:
        processor_class = _processor_class(path, model_type)
        options, _ = processor_class.get_processor_dict(path)
        parts = [_load_part(processor_class, name, path) for name in processor_class.get_attributes()]
        processor = _without_missing_parts(processor_class).from_args_and_dict(parts, options)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        raise ModelError(f"the processor of the model in {path} cannot be loaded: {error}") from error
    if getattr(processor.tokenizer, "backend_tokenizer", None) is None:
        raise ModelError(f"the model in {path} has no fast tokenizer; byte spans need one (tokenizer.json)")
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
    if not processor.chat_template:
        raise ModelError(f"the model in {path} has no chat template; use its instruction-tuned variant")
    return processor


def _processor_class(path: Path, model_type: str) -> Any:
    """The class that the files name, else the one that transformers lists for the model type."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES, processor_class_from_name

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


def _without_missing_parts(processor_class: Any) -> Any:
    """A subclass that accepts None for a part that is not needed."""

    def check_argument_for_proper_class(self: Any, name: str, part: Any) -> Any:
        return None if part is None else processor_class.check_argument_for_proper_class(self, name, part)

    # Under the same name: transformers looks at it.
    attributes = {"check_argument_for_proper_class": check_argument_for_proper_class}
    return type(processor_class.__name__, (processor_class,), attributes)


def process_image(processor: Any, family: Family, image: Image) -> ProcessedImage:
    """Run the model's own image processor on one image.

    Raises:
        RowError: ``image_unreadable`` where the processor refuses the image (an extreme aspect ratio, say).
    """
    options = processor._merge_kwargs(tokenizer_init_kwargs=processor.tokenizer.init_kwargs, return_tensors="np")
    try:
        outputs, replacements = processor._process_images([image], **options["images_kwargs"])
    except ValueError as error:
        raise RowError(
            FailureCode.IMAGE_UNREADABLE,
            f"the model's image processor refuses an image of {image.width} x {image.height} pixels: {error}",
        ) from error
    pixels = {name: np.asarray(outputs[name]) for name in family.pixel_names}
    return ProcessedImage(replacements[0], pixels, _digest(pixels))


def join_pixels(images: Sequence[Mapping[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """Join images' tensors along axis 0, smaller ones padded with zeros behind."""
    joined = {}
    for name in images[0] if images else ():
        arrays = [image[name] for image in images]
        shape = np.max([array.shape[1:] for array in arrays], axis=0).astype(int)
        room = [[(0, 0), *((0, want - got) for want, got in zip(shape, a.shape[1:], strict=True))] for a in arrays]
        joined[name] = np.concatenate([np.pad(a, widths) for a, widths in zip(arrays, room, strict=True)])
    return joined


def _digest(pixels: dict[str, npt.NDArray[Any]]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name, array in sorted(pixels.items()):
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
