"""The frozen reference model: where it is, how it loads, what identifies it, and what differs between families."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any, Final

from scorer.config import ScorerConfig
from scorer.errors import ModelError
from scorer.families import FAMILIES, TEXT_ONLY, UNLISTED_VISION, Family
from scorer.loading import adapter_path, load_model
from scorer.processing import load_processor

_FILES: Final = ("*.json", "*.jinja", "*.safetensors", "*.model", "*.txt", "tokenizer*")
_DIGESTED_LIBRARIES: Final = ("torch", "transformers", "tokenizers", "pillow", "numpy")


@dataclass(frozen=True)
class Reference:
    """A reference model's files on this machine.

    Attributes:
        name: as the user gave it: a hub id or a local directory.
        revision: the hub commit; None for a local directory.
        path: directory holding config, weights, tokenizer and processor.
    """

    name: str
    revision: str | None
    path: Path

    @classmethod
    def locate(cls, model: str | PathLike[str], revision: str | None = None) -> Reference:
        """Find a model directory, or download a hub snapshot (safetensors only).

        Raises:
            ModelError: neither a directory with a ``config.json`` nor a hub repository that can be had.
        """
        path = Path(model)
        if path.is_dir():
            if revision is not None:
                raise ModelError(f"model {model} is a local directory; it has no revision {revision!r}: leave it out")
            if not (path / "config.json").is_file():
                raise ModelError(
                    f"model directory {model} holds no config.json; give a directory saved by transformers"
                )
            return cls(str(model), None, path)
        from huggingface_hub import snapshot_download

        try:
            snapshot = Path(snapshot_download(str(model), revision=revision, allow_patterns=list(_FILES)))
        except Exception as error:  # network, authentication, a name that is no repository: all end here
            raise ModelError(
                f"model {str(model)!r} is neither a local directory nor a hub repository that can be downloaded "
                f"({type(error).__name__}: {error}); check the name, the network and HF_TOKEN"
            ) from error
        return cls(str(model), snapshot.name, snapshot)

    @cached_property
    def config(self) -> Any:
        """The transformers configuration. Raises ModelError where it does not parse or needs remote code."""
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(self.path, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"the configuration of model {self.name} cannot be read: {error}") from error

    @property
    def family(self) -> Family:
        """The family's record; one that trusts nothing for a type without one.

        Raises:
            ModelError: models of this type do not predict text token by token, or this one is a variant that cannot
                be scored.
        """
        from transformers.models.auto import modeling_auto as auto

        model_type = self.config.model_type
        if model_type in FAMILIES:
            family = FAMILIES[model_type]
        elif model_type in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            family = UNLISTED_VISION
        elif model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            family = TEXT_ONLY
        else:
            raise ModelError(
                f"model {self.name} is of type {model_type!r}, which is neither a vision-language nor a causal "
                f"language model of transformers; verified types: {', '.join(FAMILIES)}"
            )
        refusal = family.refusal(self.config)
        if refusal is not None:
            raise ModelError(f"model {self.name} cannot be scored: {refusal}")
        return family

    @property
    def context_length(self) -> int:
        """Tokens that the language model has positions for."""
        limit = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return sys.maxsize if limit is None else int(limit)  # a recurrent model has none

    def load_processor(self) -> Any:
        """Tokenizer, image processor and chat template. Raises ModelError where a part is missing."""
        return load_processor(self.path, self.config.model_type, self.family)

    def load_model(self, config: ScorerConfig) -> Any:
        """The model in evaluation mode, frozen, on its device. Raises ModelError where it cannot be had."""
        return load_model(self, config)

    def weights_digest(self) -> str:
        """SHA-256 over the names and contents of all safetensors files."""
        files = sorted(self.path.glob("*.safetensors"))
        if not files:
            raise ModelError(
                f"model {self.name} has no *.safetensors file in {self.path}; other formats are not loaded"
            )
        return _files_digest(files)


def fingerprint(model: str | PathLike[str], config: ScorerConfig, revision: str | None = None) -> dict[str, Any]:
    """Everything that decides the raw scores, as plain data; needs the model's files but not its weights in memory.

    Two runs with equal fingerprints may share one output; what differs is named when a run is refused.
    """
    reference = Reference.locate(model, revision)
    processor = reference.load_processor()
    image_processor = processor.image_processor
    return {
        "model": reference.name,
        "revision": reference.revision,
        "model_type": reference.config.model_type,
        "weights_sha256": reference.weights_digest(),
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
    return _files_digest([path / "adapter_config.json", *sorted(path.glob("*.safetensors"))])


def _options_digest(image_processor: Any) -> str:
    return _digest(json.dumps(image_processor.to_dict(), sort_keys=True, default=str))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _files_digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}:{_file_digest(file)}\n".encode())
    return digest.hexdigest()


def _file_digest(file: Path) -> str:
    """SHA-256 of a file; the hub's cache names a large file's blob by that very digest, which saves reading it."""
    blob = file.resolve()
    if blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name):
        return blob.name
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None  # run from a checkout that is not installed
