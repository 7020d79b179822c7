"""The Modality Integration Rate against a plain rendering of the paper's formula, and against transformers' states."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from scorer import Sample, Scorer
from scorer.assessment.modality import frechet_distance, integration_rate, without_outliers
from scorer.types import EncodedSample


def plain_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """|μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁Σ₂)^½, by the eigenvalues of the product."""
    a, b = first.numpy(), second.numpy()
    one, two = np.cov(a.T), np.cov(b.T)
    roots = np.sqrt(np.maximum(np.linalg.eigvals(one @ two).real, 0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one) + np.trace(two) - 2 * roots)


@pytest.mark.parametrize(("rows", "more"), [(40, 60), (5, 7)])  # more and fewer tokens than dimensions
def test_the_distance_is_that_of_the_gaussians(rows: int, more: int) -> None:
    rng = torch.Generator().manual_seed(0)
    first = torch.randn(rows, 8, generator=rng, dtype=torch.float64)
    second = 2 * torch.randn(more, 8, generator=rng, dtype=torch.float64) + 1
    assert frechet_distance(first, second) == pytest.approx(plain_distance(first, second), rel=1e-6)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(first, second + 1) > frechet_distance(first, second) + 8


def test_tokens_with_unusual_norms_become_the_median() -> None:
    tokens = torch.ones(100, 3, dtype=torch.float64)
    tokens[:, 0] += torch.linspace(0, 0.1, 100)
    tokens[7] = 1000
    found = without_outliers(tokens)
    assert found[7].tolist() == tokens.median(dim=0).values.tolist()
    rest = [i for i in range(100) if i != 7]
    assert torch.equal(found[rest], tokens[rest])


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.load()


def encoded(scorer: Scorer, count: int) -> list[EncodedSample]:
    rows = []
    for i in range(count):
        image = Image.new("RGB", (80, 80), (40 * i, 90, 200 - 30 * i))
        row = scorer.encoder.try_encode(Sample.caption(str(i), image, f"a red circle and {i} blue stars on it"))
        assert isinstance(row, EncodedSample)
        rows.append(row)
    return rows


@torch.inference_mode()
def plain_distances(scorer: Scorer, rows: list[EncodedSample]) -> list[float]:
    """The distances from the hidden states that transformers itself returns, the embeddings left out."""
    layers: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
    for row in rows:
        ids = torch.from_numpy(row.clean.input_ids)
        pixels = torch.from_numpy(np.asarray(row.clean.pixels["pixel_values"]))
        states = scorer.model.model(input_ids=ids[None], pixel_values=pixels, output_hidden_states=True).hidden_states
        # The decoder applies its last norm to the last of them only; the layers' own states are compared.
        image = ids == scorer.model.image_token_id
        last = int(image.nonzero()[-1])
        layers.append([(state[0][image].double(), state[0][last + 1 :].double()) for state in states[1:-1]])
    distances = []
    for layer in zip(*layers, strict=True):
        vision, text = (torch.cat([row[kind] for row in layer]) for kind in (0, 1))
        scale = text.norm(dim=1).mean()
        distances.append(plain_distance(without_outliers(vision / scale), without_outliers(text / scale)))
    return distances


def test_the_layers_are_those_of_transformers(scorer: Scorer) -> None:
    rows = encoded(scorer, 4)
    found = integration_rate(scorer.model, rows)
    assert found is not None
    expected = plain_distances(scorer, rows)
    assert found.layers[:-1] == pytest.approx(expected, rel=1e-3)
    assert found.rate == pytest.approx(math.log10(sum(found.layers)))
    assert found.image_tokens == 4 * 64


def test_hooks_are_taken_off(scorer: Scorer) -> None:
    layers = scorer.model.model.get_decoder().layers
    before = [list(layer._forward_hooks) for layer in layers]
    assert integration_rate(scorer.model, encoded(scorer, 1)) is not None
    assert [list(layer._forward_hooks) for layer in layers] == before


def test_nothing_is_measured_without_images(scorer: Scorer) -> None:
    assert integration_rate(scorer.model, []) is None
