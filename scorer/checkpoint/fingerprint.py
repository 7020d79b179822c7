"""Compute the fingerprint of a reference model and its scoring options, without loading its weights."""

from __future__ import annotations

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
    return fingerprint_of(Checkpoint.locate(model, revision), config)


def fingerprint_of(checkpoint: Checkpoint, config: ScorerConfig) -> dict[str, Any]:
    """Return the fingerprint of a model that was located; its files are read once for all configurations."""
    return {
        "model": checkpoint.name,
        "revision": checkpoint.revision,
        "model_type": checkpoint.config.model_type,
        **checkpoint.digests,
        **config.fingerprint(),
        "adapter_sha256": None if config.adapter is None else _adapter_digest(config.adapter),
        "versions": versions(*SCORING),
    }


def _adapter_digest(adapter: str) -> str:
    path = adapter_path(adapter)
    return digest_of_files([path / "adapter_config.json", *sorted(path.glob("*.safetensors"))])
