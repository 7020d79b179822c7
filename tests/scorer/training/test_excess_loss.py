"""The selection by excess loss: its naive form, its gradient, what it does without a reference, what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scorer.errors import ConfigError, WeightsError
from scorer.training.excess_loss import excess_loss_cross_entropy, excess_loss_weights

losses = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5, 7.25])


@given(st.lists(st.tuples(losses, st.one_of(losses, st.just(math.nan))), max_size=30), st.integers(1, 100))
def test_weights_equal_their_naive_form(pairs: list[tuple[float, float]], percent: int) -> None:
    student, reference = torch.tensor(pairs).reshape(-1, 2).T
    known = [i for i, (_, own) in enumerate(pairs) if not math.isnan(own)]
    ranked = sorted(known, key=lambda i: -(pairs[i][0] - pairs[i][1]))[: math.ceil(percent * len(known) / 100 - 1e-9)]
    expected = [float(i in ranked or i not in known) for i in range(len(pairs))]
    assert excess_loss_weights(student, reference, share=percent / 100).tolist() == expected


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Logits [3, 7, 11], labels [3, 7] with a masked prompt, the reference's losses [3, 7]."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 7, 11, generator=generator) * 3
    labels = torch.randint(0, 11, (3, 7), generator=generator)
    labels[:, :2] = -100
    reference = torch.rand(3, 7, generator=generator) * 4
    reference[:, :2] = math.nan  # ignored: nothing is labelled there
    return logits, labels, reference


def test_only_selected_tokens_have_a_gradient() -> None:
    logits, labels, reference = batch()
    reference[0, 3] = math.nan
    logits.requires_grad_(True)
    loss = excess_loss_cross_entropy(logits, labels, reference, share=0.3)
    loss.backward()
    assert logits.grad is not None
    taught = logits.grad.abs().sum(-1) > 0  # [3, 7], one position early
    assert int(taught.sum()) == math.ceil(0.3 * 14) + 1
    assert bool(taught[0, 2]), "a token that the reference did not score is trained on"
    nll = F.cross_entropy(logits.detach()[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none", ignore_index=-100)
    assert loss.item() == pytest.approx(float(nll[taught[:, :-1]].mean()))


def test_all_tokens_give_the_mean_loss() -> None:
    logits, labels, reference = batch()
    expected = F.cross_entropy(logits[:, :-1].reshape(-1, 11), labels[:, 1:].reshape(-1))
    assert excess_loss_cross_entropy(logits, labels, reference, share=1).item() == pytest.approx(expected.item())
    some = excess_loss_cross_entropy(logits, labels, reference, share=0.3).item()
    assert some != pytest.approx(expected.item(), rel=0.05), "negative control"
    already = excess_loss_cross_entropy(logits[:, :-1], labels[:, 1:], reference[:, 1:], share=0.3, shift=False)
    assert already.item() == pytest.approx(some)


def test_low_precision_and_nothing_to_train_on() -> None:
    logits, labels, reference = batch()
    half = excess_loss_cross_entropy(logits.bfloat16(), labels, reference)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(excess_loss_cross_entropy(logits, labels, reference).item(), rel=0.1)
    assert excess_loss_cross_entropy(logits, torch.full_like(labels, -100), reference).item() == 0


def test_refusals() -> None:
    one = torch.ones(3)
    for share in (0, 1.5, math.nan):
        with pytest.raises(ConfigError, match=rf"share of tokens to train on is {share}; it must lie in \(0, 1\]"):
            excess_loss_weights(one, one, share=share)
    with pytest.raises(WeightsError, match=r"losses have shape \(3,\), the reference's \(2,\); both must be \[K\]"):
        excess_loss_weights(one, one[:2])
    with pytest.raises(WeightsError, match="the student's loss of token 1 is nan; mask it"):
        excess_loss_weights(torch.tensor([1, math.nan]), one[:2])
    with pytest.raises(WeightsError, match="the reference's loss of token 0 is inf; mask it"):
        excess_loss_weights(one[:2], torch.tensor([math.inf, 1]))
    logits, labels, reference = batch()
    with pytest.raises(WeightsError, match=r"they must be \[B, T, V\], \[B, T\] and \[B, T\]"):
        excess_loss_cross_entropy(logits, labels, reference[:, 1:])
