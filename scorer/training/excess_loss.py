"""Select a batch's tokens by a live student's excess loss, as Rho-1 does (arXiv 2404.07965, selective modelling).

A token's excess loss is L_θ − L_ref, the student's loss now minus the reference model's. The best share of the batch's
tokens is trained on; the others have no loss. What the student has learned has none to gain, and noise is lost on the
reference as well. Rho-1's reference is a language model; here it is the one that a run scored with, which sees the
image: :class:`scorer.training.reference_losses.ReferenceLosses` carries its stored losses onto the trainer's tokens.
"""

from __future__ import annotations

import math
from fractions import Fraction

from scorer.extras import needing

with needing(__name__, extra="train"):
    import torch
    import torch.nn.functional as F
    from torch import Tensor

from scorer.errors import ConfigError, WeightsError
from scorer.training.alignment import IGNORE_INDEX


def excess_loss_weights(student: Tensor, reference: Tensor, *, share: float = 0.6) -> Tensor:
    """Return 1 for the ⌈share · n⌉ tokens of the greatest excess loss among n, 0 for the others; earlier ones on ties.

    Args:
        student: [K], the student's loss of each token of the batch that could be trained on, in nats.
        reference: [K], the reference's. A NaN, of a token that it did not score, is none of the n and has weight 1: it
            is trained on as it would be without a selection.
        share: of the tokens to train on, in (0, 1]; the paper has 0.6 and 0.7.

    Returns:
        float32 [K], without a gradient.

    Raises:
        ConfigError: ``share`` is out of range.
        WeightsError: shapes differ, or a loss is NaN (the student's) or infinite.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"the share of tokens to train on is {share}; it must lie in (0, 1]")
    if student.ndim != 1 or student.shape != reference.shape:
        raise WeightsError(
            f"the student's losses have shape {tuple(student.shape)}, the reference's {tuple(reference.shape)}; both "
            "must be [K]"
        )
    student, reference = student.detach().double(), reference.detach().double().to(student.device)
    for name, losses, wrong in (
        ("student", student, ~torch.isfinite(student)),
        ("reference", reference, torch.isinf(reference)),
    ):
        if bool(wrong.any()):
            i = int(wrong.nonzero()[0])
            raise WeightsError(f"the {name}'s loss of token {i} is {float(losses[i])}; mask it with the ignored label")
    known = ~torch.isnan(reference)
    count = math.ceil(Fraction(repr(float(share))) * int(known.sum()))  # a fraction, because 0.07 * 100 exceeds 7
    excess = torch.where(known, student - reference, -math.inf)
    kept = ~known
    kept[torch.sort(excess, descending=True, stable=True).indices[:count]] = True
    return kept.float()


def excess_loss_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    reference: Tensor,
    *,
    share: float = 0.6,
    shift: bool = True,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Return the mean loss over the tokens of the batch that :func:`excess_loss_weights` selects.

    A batch is what one call sees: with accumulated or distributed gradients, each micro-batch is ranked by itself.

    Args:
        logits: [B, T, V], any floating dtype; float16 and bfloat16 are computed in float32, and only where labelled.
        labels: int64 [B, T], aligned with the input ids; ``ignore_index`` marks positions that are not trained on.
        reference: [B, T], the reference's losses, aligned with the labels; ignored where nothing is labelled.
        share: see :func:`excess_loss_weights`.
        shift: False if ``logits[t]`` already predicts ``labels[t]``.

    Returns:
        Scalar, float32 (float64 for float64 logits); 0 if nothing is labelled.

    Raises:
        ConfigError, WeightsError: as :func:`excess_loss_weights`; or the shapes do not match.
    """
    if logits.ndim != 3 or labels.shape != logits.shape[:2] or reference.shape != labels.shape:
        raise WeightsError(
            f"logits have shape {tuple(logits.shape)}, labels {tuple(labels.shape)}, the reference's losses "
            f"{tuple(reference.shape)}; they must be [B, T, V], [B, T] and [B, T]"
        )
    if shift:
        logits, labels, reference = logits[:, :-1], labels[:, 1:], reference[:, 1:]
    labelled = labels != ignore_index
    kept = logits[labelled]  # [K, V]
    if kept.dtype in (torch.float16, torch.bfloat16):
        kept = kept.float()
    nll = F.cross_entropy(kept, labels[labelled], reduction="none")  # [K]
    weights = excess_loss_weights(nll, reference[labelled], share=share).to(nll.dtype)
    return (weights * nll).sum() / weights.sum().clamp(min=1)
