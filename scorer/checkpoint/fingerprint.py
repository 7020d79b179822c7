"""What identifies a reference model and the way it scores, without loading its weights."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from typing import Any, Final

from scorer.checkpoint.files import Checkpoint, digest_of_files
from scorer.checkpoint.loading import adapter_path
from scorer.config import ScorerConfig

_DIGESTED_LIBRARIES: Final = ("torch", "transformers", "tokenizers", "pillow", "numpy")


def fingerprint(model: str | PathLike[str], config: ScorerConfig, revision: str | None = None) -> dict[str, Any]:
    """Everything that decides the raw scores, as plain data; needs the model's files but not its weights in memory.

    Two runs with equal fingerprints may share one output; what differs is named when a run is refused.
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
        "versions": {name: _version(name) for name in ("tokensight", *_DIGESTED_LIBRARIES)},
    }


def _adapter_digest(adapter: str) -> str:
    path = adapter_path(adapter)
    return digest_of_files([path / "adapter_config.json", *sorted(path.glob("*.safetensors"))])


def _options_digest(image_processor: Any) -> str:
    return _digest(json.dumps(image_processor.to_dict(), sort_keys=True, default=str))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None  # run from a checkout that is not installed
