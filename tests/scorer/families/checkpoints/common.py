"""What the families' tiny checkpoints have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

from tests.scorer import tiny
from tests.scorer.tiny import CONTEXT, encoder_config, text_config

__all__ = [
    "CONTEXT",
    "chatml",
    "encoder_config",
    "save",
    "save_model",
    "save_parts",
    "siglip",
    "text_config",
    "tokenizer",
]


def tokenizer(specials: Sequence[str], **options: Any) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a family's special tokens; ``options`` go to the tokenizer (``extra_special_tokens=…``)."""
    return tiny.byte_level_tokenizer(["<pad>", "<|im_start|>", "<|im_end|>", *specials], **options)


def chatml(image: str) -> str:
    """A ChatML template that writes ``image`` in an image's place."""
    return tiny.CHATML.replace("<image>", image)


def save(
    path: Path, model_class: type[PreTrainedModel], config: Any, processor: ProcessorMixin, spread: float | None = None
) -> Path:
    """A random model and its processor's files in ``path``; ``spread`` as in :func:`save_model`."""
    processor.save_pretrained(path)
    return save_model(path, model_class, config, spread)


def save_parts(
    path: Path, name: str, words: PreTrainedTokenizerFast, image_processor: Any, chat_template: str, **options: Any
) -> None:
    """The files of a processor that cannot be made here, for want of its video part."""
    words.chat_template = chat_template
    words.save_pretrained(path)
    image_processor.save_pretrained(path)
    (path / "processor_config.json").write_text(json.dumps({"processor_class": name, **options}))


def save_model(path: Path, model_class: type[PreTrainedModel], config: Any, spread: float | None = None) -> Path:
    """A random model in ``path``.

    ``spread`` is the standard deviation of its matrices, for a class that takes no initializer range of its parts.
    """
    torch.manual_seed(0)
    model = model_class(config)
    with torch.no_grad():  # biases and norms begin as 0 and 1, where a mistake in them would not show
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif spread is not None:
                parameter.normal_(0, spread)
    model.save_pretrained(path)
    return path


def siglip(**options: Any) -> dict[str, Any]:
    """A vision tower of 16 patches."""
    sizes = {"image_size": 16, "patch_size": 4, **options}
    return encoder_config(model_type="siglip_vision_model", vision_use_head=False, **sizes)
