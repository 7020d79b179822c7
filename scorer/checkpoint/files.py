"""Locate a reference model's files on this machine and read its configuration."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Final

from scorer.checkpoint.intact import check_documents, check_weights
from scorer.checkpoint.loading import load_model
from scorer.checkpoint.processor import load_processor
from scorer.config import ScorerConfig
from scorer.errors import ModelError, explain
from scorer.families import FAMILIES, TEXT_ONLY, UNLISTED_VISION, Family

_FILES: Final = ("*.json", "*.jinja", "*.safetensors", "*.model", "*.txt", "tokenizer*")


@dataclass(frozen=True)
class Checkpoint:
    """A reference model's files on this machine.

    Attributes:
        name: the hub id or local directory, as the user gave it.
        revision: the hub commit; None for a local directory.
        path: the directory with configuration, weights, tokenizer and processor.
    """

    name: str
    revision: str | None
    path: Path

    @classmethod
    def locate(cls, model: str | PathLike[str], revision: str | None = None) -> Checkpoint:
        """Find a model directory, or download a hub snapshot (safetensors only).

        Raises:
            ModelError: ``model`` is neither a directory with a ``config.json`` nor a downloadable hub repository.
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
        except Exception as error:  # network, authentication, no such repository: all end up here
            raise ModelError(
                f"model {str(model)!r} is neither a local directory nor a hub repository that can be downloaded "
                f"({type(error).__name__}: {error}); check the name, the network and HF_TOKEN"
            ) from error
        return cls(str(model), snapshot.name, snapshot)

    @cached_property
    def config(self) -> Any:
        """The transformers configuration, without a choice of attention: that is the user's, and in the fingerprint.

        Raises:
            ModelError: a document is damaged, or the configuration needs remote code.
        """
        from transformers import AutoConfig

        check_documents(self.path, self.name)
        try:
            config = AutoConfig.from_pretrained(self.path, trust_remote_code=False)
            config._attn_implementation = None  # of its parts too; a file may name any kernel of the hub
            return config
        except Exception as error:  # a value of the wrong type surfaces as any of them
            said = f"the configuration of model {self.name} cannot be read: {explain(error)}"
            raise ModelError(f"{said}; check {self.path / 'config.json'}") from error

    @property
    def family(self) -> Family:
        """The family's record, or one that assumes nothing if the model type has no record.

        Raises:
            ModelError: models of this type do not predict text token by token, or this variant cannot be scored.
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
                f"model {self.name} has type {model_type!r}, which is neither a vision-language nor a causal "
                f"language model in transformers; verified types: {', '.join(FAMILIES)}"
            )
        refusal = family.refusal(self.config)
        if refusal is not None:
            raise ModelError(f"model {self.name} cannot be scored: {refusal}")
        return family

    @property
    def context_length(self) -> int:
        """The number of tokens that the language model has positions for."""
        limit = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return sys.maxsize if limit is None else int(limit)  # a recurrent model has no limit

    def load_processor(self) -> Any:
        """Load tokenizer, image processor and chat template. Raises ModelError if a part is missing or damaged."""
        return load_processor(self.path, self.config.model_type, self.family)

    def load_model(self, config: ScorerConfig) -> Any:
        """Load the model in evaluation mode, frozen, on its device. Raises ModelError if it cannot be loaded."""
        check_weights(self.path, self.name)
        return load_model(self.path, self.name, config, self.config, self.family)

    @cached_property
    def digests(self) -> Mapping[str, str | None]:
        """What identifies weights, tokenizer, chat template and image processor: SHA-256 and class, by fingerprint key.

        Hashing tens of gigabytes takes as long as loading them, so the files are read once.

        Raises:
            ModelError: a part is missing or damaged.
        """
        processor = self.load_processor()
        image_processor = processor.image_processor
        return {
            "weights_sha256": self._weights_digest(),
            "tokenizer_sha256": _digest(processor.tokenizer.backend_tokenizer.to_str()),
            "chat_template_sha256": _digest(processor.chat_template),
            "image_processor": None if image_processor is None else type(image_processor).__name__,
            "image_processor_sha256": None if image_processor is None else _options_digest(image_processor),
        }

    def _weights_digest(self) -> str:
        """Return the SHA-256 over the names and contents of all safetensors files."""
        check_weights(self.path, self.name)
        return digest_of_files(sorted(self.path.glob("*.safetensors")))


def _options_digest(image_processor: Any) -> str:
    return _digest(json.dumps(image_processor.to_dict(), sort_keys=True, default=str))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_files(files: Sequence[Path]) -> str:
    """Return the SHA-256 over the names and contents of files, in the given order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}:{_file_digest(file)}\n".encode())
    return digest.hexdigest()


def _file_digest(file: Path) -> str:
    """Return the SHA-256 of a file; the hub's cache names a large file's blob by it, which saves reading the file."""
    blob = file.resolve()
    if blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name):
        return blob.name
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
