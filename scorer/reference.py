"""The frozen reference model: where it is, how it loads, what identifies it, and what differs between families."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any, Final

from scorer.config import ScorerConfig
from scorer.errors import ModelError
from scorer.families import FAMILIES, Family
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
        """The family's record. Raises ModelError for a family that has not been verified."""
        model_type = self.config.model_type
        if model_type not in FAMILIES:
            raise ModelError(
                f"model {self.name} is of type {model_type!r}; verified types: {', '.join(FAMILIES)}. A family "
                "that has not been verified could give silently wrong weights"
            )
        return FAMILIES[model_type]

    @property
    def context_length(self) -> int:
        """Tokens that the language model has positions for."""
        return int(self.config.get_text_config().max_position_embeddings)

    def load_processor(self) -> Any:
        """Tokenizer, image processor and chat template. Raises ModelError where a part is missing."""
        return load_processor(self.path, self.config.model_type)

    def load_model(self, config: ScorerConfig) -> Any:
        """The model in evaluation mode, frozen, on its device. Raises ModelError where it cannot be had."""
        import torch
        from transformers import AutoModelForImageTextToText

        device = resolve_device(config.device)
        try:
            model = AutoModelForImageTextToText.from_pretrained(
                self.path,
                dtype=getattr(torch, config.dtype),
                attn_implementation="sdpa",
                use_safetensors=True,
                trust_remote_code=False,
            )
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(f"the weights of model {self.name} cannot be loaded: {error}") from error
        return model.eval().requires_grad_(False).to(device)

    def weights_digest(self) -> str:
        """SHA-256 over the names and contents of all safetensors files."""
        files = sorted(self.path.glob("*.safetensors"))
        if not files:
            raise ModelError(
                f"model {self.name} has no *.safetensors file in {self.path}; other formats are not loaded"
            )
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.name}:{_file_digest(file)}\n".encode())
        return digest.hexdigest()


def resolve_device(device: str) -> str:
    """``auto`` → ``cuda`` where there is one, else ``cpu``; anything else as it is, if torch can use it."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device {device!r} was asked for, but torch sees no CUDA device; use --device cpu or auto")
    return device


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
        "image_processor": type(image_processor).__name__,
        "image_processor_sha256": _digest(json.dumps(image_processor.to_dict(), sort_keys=True, default=str)),
        **config.fingerprint(),
        "versions": {name: _version(name) for name in ("tokensight", *_DIGESTED_LIBRARIES)},
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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
