"""The weighted loss against its naive form, its gradient, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scorer.errors import WeightsError
from scorer.training import weighted_cross_entropy


def batch(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [3, 7, 11], labels [3, 7] with a masked prompt and padding, weights [3, 7]."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 7, 11, generator=generator, dtype=torch.float64) * 3
    labels = torch.randint(0, 11, (3, 7), generator=generator)
    labels[:, :2] = -100
    labels[1, 5:] = -100
    weights = torch.rand(3, 7, generator=generator) * 4 + 0.5
    return logits.to(dtype), labels, weights


def naive(logits: Tensor, labels: Tensor, weights: Tensor) -> float:
    top = bottom = 0.0
    for row in range(labels.shape[0]):
        for t in range(1, labels.shape[1]):
            label = int(labels[row, t])
            if label != -100:
                scores = logits[row, t - 1].double()
                nll = float(torch.logsumexp(scores, 0) - scores[label])
                top += float(weights[row, t]) * nll
                bottom += float(weights[row, t])
    return top / bottom


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_naive_form(seed: int) -> None:
    logits, labels, weights = batch(seed)
    loss = weighted_cross_entropy(logits, labels, weights)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(naive(logits, labels, weights), rel=1e-6)


def test_by_hand() -> None:
    """Two labelled tokens: probability 1/2 with weight 3, probability 1/4 with weight 1."""
    logits = torch.tensor([[[0.0, 0.0], [0.0, math.log(3.0)], [7.0, -7.0]]])
    loss = weighted_cross_entropy(logits, torch.tensor([[-100, 1, 0]]), torch.tensor([[9.0, 3.0, 1.0]]))
    assert loss.item() == pytest.approx((3 * math.log(2) + math.log(4)) / 4)


def test_weights_of_one_are_plain_cross_entropy() -> None:
    logits, labels, weights = batch()
    plain = F.cross_entropy(logits[:, :-1].reshape(-1, 11), labels[:, 1:].reshape(-1))
    assert weighted_cross_entropy(logits, labels, torch.ones_like(weights)).item() == pytest.approx(plain.item())
    # negative control: the weights do something
    assert abs(weighted_cross_entropy(logits, labels, weights).item() - plain.item()) > 1e-3


def test_a_loss_shifted_once_too_often_differs() -> None:
    logits, labels, weights = batch()
    once = weighted_cross_entropy(logits, labels, weights)
    aligned = weighted_cross_entropy(logits[:, :-1], labels[:, 1:], weights[:, 1:], shift=False)
    assert once.item() == aligned.item()
    twice = weighted_cross_entropy(logits[:, :-1], labels[:, 1:], weights[:, 1:])
    assert abs(twice.item() - once.item()) > 1e-3


def test_only_the_weights_proportions_matter() -> None:
    logits, labels, weights = batch()
    one, ten = (weighted_cross_entropy(logits, labels, weights * scale).item() for scale in (1, 10))
    assert one == pytest.approx(ten, rel=1e-6)


def test_unlabelled_positions_do_not_matter() -> None:
    logits, labels, weights = batch()
    before = weighted_cross_entropy(logits, labels, weights)
    weights[labels == -100] = math.nan
    logits[:, -1] = 1e9
    assert weighted_cross_entropy(logits, labels, weights).item() == before.item()


def test_the_gradient_is_right() -> None:
    logits, labels, weights = batch(dtype=torch.float64)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: weighted_cross_entropy(x, labels, weights), (logits,))
    weighted_cross_entropy(logits, labels, weights).backward()
    assert logits.grad is not None
    predicts = torch.zeros(3, 7, dtype=torch.bool)
    predicts[:, :-1] = labels[:, 1:] != -100
    assert torch.equal(logits.grad.abs().sum(-1) > 0, predicts)


def test_no_gradient_reaches_the_weights() -> None:
    logits, labels, weights = batch()
    weights.requires_grad_()
    assert not weighted_cross_entropy(logits, labels, weights).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    logits, labels, weights = batch(dtype=dtype)
    logits.requires_grad_()
    loss = weighted_cross_entropy(logits, labels, weights.to(dtype))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(naive(logits.detach(), labels, weights.to(dtype)), rel=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.dtype == dtype


@pytest.mark.parametrize("nothing", ["labels", "weights"])
def test_a_batch_that_weighs_nothing_has_no_loss_and_no_gradient(nothing: str) -> None:
    logits, labels, weights = batch()
    logits.requires_grad_()
    if nothing == "labels":
        labels[:] = -100
    else:
        weights[:] = 0
    loss = weighted_cross_entropy(logits, labels, weights)
    assert loss.item() == 0
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("value", [-0.5, math.nan, math.inf])
def test_weights_that_cannot_weigh_are_refused(value: float) -> None:
    logits, labels, weights = batch()
    weights[1, 4] = value
    with pytest.raises(WeightsError, match=rf"the weight at row 1, position 4 is {value}; .*finite and at least 0"):
        weighted_cross_entropy(logits, labels, weights)


@pytest.mark.parametrize(
    ("logits", "labels", "weights"),
    [((2, 3, 5), (2, 3), (2, 2)), ((2, 3, 5), (2, 2), (2, 3)), ((6, 5), (6,), (6,)), ((2, 3, 5), (2, 3), (3,))],
)
def test_shapes_that_do_not_match_are_refused(
    logits: tuple[int, ...], labels: tuple[int, ...], weights: tuple[int, ...]
) -> None:
    with pytest.raises(WeightsError, match=r"logits have shape .* they must be \[B, T, V\], \[B, T\] and \[B, T\]"):
        weighted_cross_entropy(torch.zeros(logits), torch.zeros(labels, dtype=torch.long), torch.ones(weights))
