"""Compute the fingerprint of a reference model and its scoring options, without loading its weights."""

from __future__ import annotations

import hashlib
import json
from os import PathLike
from typing import Any

from scorer.checkpoint.files import Checkpoint, digest_of_files
from scorer.checkpoint.loading import adapter_path
from scorer.config import ScorerConfig
from scorer.versions import SCORING, versions


def fingerprint(model: str | PathLike[str], config: ScorerConfig, revision: str | None = None) -> dict[str, Any]:
    """Return everything that decides the raw scores, as plain data; reads the model's files without loading weights.

    Two runs with equal fingerprints may share an output; when a run is refused, the differences are listed.
    """
    checkpoint = Checkpoint.locate(model, revision)
    processor = checkpoint.load_processor()
    image_processor = processor.image_processor
    return {
        "model": checkpoint.name,
        "revision": checkpoint.revision,
        "model_type": checkpoint.config.model_type,
        "weights_sha256": checkpoint.weights_digest(),
        "tokenizer_sha256": _digest(processor.tokenizer.backend_tokenizer.to_str()),
        "chat_template_sha256": _digest(processor.chat_template),
        "image_processor": None if image_processor is None else type(image_processor).__name__,
        "image_processor_sha256": None if image_processor is None else _options_digest(image_processor),
        **config.fingerprint(),
        "adapter_sha256": None if config.adapter is None else _adapter_digest(config.adapter),
        "versions": versions(*SCORING),
    }


def _adapter_digest(adapter: str) -> str:
    path = adapter_path(adapter)
    return digest_of_files([path / "adapter_config.json", *sorted(path.glob("*.safetensors"))])


def _options_digest(image_processor: Any) -> str:
    return _digest(json.dumps(image_processor.to_dict(), sort_keys=True, default=str))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
