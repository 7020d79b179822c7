"""Load the processor of a model directory: tokenizer, image processor and chat template.

A processor that also handles videos refuses to load without torchvision. Its image part does not need torchvision, so
the processor is assembled without its video part.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any, Final

from scorer.checkpoint.text_processor import TextProcessor
from scorer.errors import ModelError, explain
from scorer.families import Family

IMAGE_BACKEND: Final = "pil"
"""The image-processing backend. Pinned: torchvision's resize changes pixels, and hence scores (by up to 0.028)."""

_IMPORTING: Final = Lock()


def load_processor(path: Path, model_type: str, family: Family) -> Any:
    """Load the processor of a model directory, with the pinned image backend and without its video part.

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
    except ModelError:
        raise
    except Exception as error:  # tokenizers raises no narrower class
        said = f"the processor of the model in {path} cannot be loaded: {explain(error)}"
        raise ModelError(f"{said}; check its tokenizer and processor files") from error
    _with_fast_tokenizer(processor, path)
    if getattr(processor, "image_token", None) is None:
        raise ModelError(f"the processor {type(processor).__name__} of the model in {path} has no image token")
    processor.chat_template = family.template or processor.chat_template or processor.tokenizer.chat_template
    if not processor.chat_template:
        raise ModelError(f"the model in {path} has no chat template; use its instruction-tuned variant")
    return processor


def _with_fast_tokenizer(processor: Any, path: Path) -> Any:
    if getattr(processor.tokenizer, "backend_tokenizer", None) is None:
        raise ModelError(f"the model in {path} has no fast tokenizer; byte spans need one (tokenizer.json)")
    return processor


def _class_itself(processor_class: Any) -> Any:
    """Return the real class if transformers replaces it with a dummy because torchvision is missing.

    Such a class (Pixtral's) imports a helper from its torchvision image processor; the PIL one has the same helper.
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
    """Return the family's processor class, else the one named in the files, else the one listed for the model type."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES, processor_class_from_name

    if family.processor is not None:
        return processor_class_from_name(family.processor)
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        file = path / name
        named = json.loads(file.read_bytes()).get("processor_class") if file.is_file() else None
        if named is not None:
            found = processor_class_from_name(named) if isinstance(named, str) else None
            if found is None:
                raise ModelError(
                    f"{file} names the processor class {named!r}, which transformers {version('transformers')} lacks; "
                    "use a version that has it, or a model whose files name another"
                )
            return found
    if model_type not in PROCESSOR_MAPPING_NAMES:
        raise ModelError(
            f"the model in {path} names no processor class, and transformers lists none for type {model_type!r}"
        )
    return processor_class_from_name(PROCESSOR_MAPPING_NAMES[model_type])


def _load_part(processor_class: Any, name: str, path: Path) -> Any:
    from transformers import AutoImageProcessor

    if name == "image_processor":
        return AutoImageProcessor.from_pretrained(path, backend=IMAGE_BACKEND, trust_remote_code=False)
    if "tokenizer" in name:
        return processor_class._load_tokenizer_from_pretrained(name, path, trust_remote_code=False)
    return None  # video and audio


def _without_missing_parts(processor_class: Any, family: Family) -> Any:
    """Return a subclass that accepts None for a part that is not needed."""

    def check_argument_for_proper_class(self: Any, name: str, part: Any) -> Any:
        return None if part is None else processor_class.check_argument_for_proper_class(self, name, part)

    # The subclass keeps the name, because transformers reads it.
    attributes: dict[str, Any] = {"check_argument_for_proper_class": check_argument_for_proper_class}
    image_text = family.image_text
    if image_text is not None:
        attributes["replace_image_token"] = lambda self, *args, **kwargs: image_text(self)
    return type(processor_class.__name__, (processor_class,), attributes)
