"""Measure how far image tokens lie from text tokens inside the model: the Modality Integration Rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from scorer.forward import ReferenceModel
from scorer.types import Branch, EncodedSample

MAX_TOKENS: Final = 1024
"""Tokens of each kind at most, drawn evenly; the cost grows with their cube."""
OUTLIER: Final = 3.0
"""A token whose norm is farther from the median than this many standard deviations is an outlier."""


@dataclass(frozen=True, slots=True)
class Modality:
    """The distance of image tokens from text tokens; smaller means better integrated.

    Attributes:
        rate: the base-10 logarithm of the sum over the layers.
        layers: the distance after each layer of the decoder, from the first on.
        image_tokens, text_tokens: how many of each it was measured on.
    """

    rate: float
    layers: tuple[float, ...]
    image_tokens: int
    text_tokens: int


def integration_rate(model: ReferenceModel, rows: Sequence[EncodedSample]) -> Modality | None:
    """Return the Modality Integration Rate on the clean inputs of some rows (Huang et al. 2025, arXiv 2410.07167, 3).

    For each layer k: both kinds of tokens are divided by the mean norm of the text tokens, outliers in norm are
    replaced by the median token, and the distance is the Fréchet distance of the two Gaussians that fit them,

        |μ_v − μ_t|² + tr Σ_v + tr Σ_t − 2 tr (Σ_v Σ_t)^½;

    the rate is log₁₀ of the sum over k. Text tokens are those after the last image, as in the authors' code.

    Returns:
        None if no row has an image, or the class of the model has no list of decoder layers to look into.
    """
    layers = _decoder_layers(model)
    if layers is None:
        return None
    kept: list[list[list[Tensor]]] = []
    for row in rows:
        image = row.clean.input_ids == model.image_token_id
        if row.text_only or not image.any():
            continue
        states = _layer_states(model, layers, row.clean)
        last = int(image.nonzero()[0][-1])
        chosen = torch.from_numpy(image)
        kept.append([[layer[chosen.to(layer.device)].cpu(), layer[last + 1 :].cpu()] for layer in states])
    if not kept:
        return None
    distances = []
    counts = (0, 0)
    for layer in zip(*kept, strict=True):
        vision, text = (_thinned(torch.cat([row[kind] for row in layer]).double()) for kind in (0, 1))
        counts = len(vision), len(text)
        if min(counts) < 2:
            return None
        scale = text.norm(dim=1).mean()
        distances.append(frechet_distance(without_outliers(vision / scale), without_outliers(text / scale)))
    return Modality(math.log10(sum(distances)) if sum(distances) > 0 else -math.inf, tuple(distances), *counts)


def without_outliers(tokens: Tensor) -> Tensor:
    """Return tokens [N, D] with those whose norm is an outlier replaced by the median of each coordinate."""
    norms = tokens.norm(dim=1)
    outlier = (norms - norms.median()).abs() > OUTLIER * norms.std()
    return torch.where(outlier[:, None], tokens.median(dim=0).values, tokens)


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Return the Fréchet distance of the Gaussians that fit tokens [N, D] and [M, D] (Heusel et al. 2017, 1706.08500).

    tr (Σ₁Σ₂)^½ is the sum of the singular values of C₁C₂ᵀ, where Σ = CᵀC: exact, and N × M instead of D × D.
    """
    means = [tokens.mean(dim=0) for tokens in (first, second)]
    centred = [
        (tokens - mean) / math.sqrt(len(tokens) - 1) for tokens, mean in zip((first, second), means, strict=True)
    ]
    spread = sum(float(tokens.square().sum()) for tokens in centred)
    shared = float(torch.linalg.svdvals(centred[0] @ centred[1].T).sum())
    return max(0.0, float((means[0] - means[1]).square().sum()) + spread - 2 * shared)


def _thinned(tokens: Tensor) -> Tensor:
    """Return at most :data:`MAX_TOKENS` of the tokens, evenly."""
    if len(tokens) <= MAX_TOKENS:
        return tokens
    return tokens[torch.linspace(0, len(tokens) - 1, MAX_TOKENS).long()]


def _decoder_layers(model: ReferenceModel) -> Any:
    """Return the decoder's layers, or None: for models without images, and classes that are built otherwise."""
    if model.family.text_only:
        return None
    decoder = model.model.get_decoder() if hasattr(model.model, "get_decoder") else None
    return getattr(decoder, "layers", None)


@torch.inference_mode()
def _layer_states(model: ReferenceModel, layers: Any, branch: Branch) -> list[Tensor]:
    """Return the states after each layer, [T, D] each, of one branch alone."""
    row = model.prepare(branch)
    with model.eager(), _recorded(layers) as states:
        model.hidden([row.ids], [row.positions], [row.attend], [row.pixels], [row.token_inputs])
    return states


@contextmanager
def _recorded(layers: Any) -> Iterator[list[Tensor]]:
    """Record the states of one row after each layer while the context lasts."""
    states: list[Tensor] = []

    def record(module: Any, args: Any, output: Any) -> None:
        found = output[0] if isinstance(output, tuple) else output
        states.append(found[0].float())

    handles = [layer.register_forward_hook(record) for layer in layers]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
