"""Compute the weighted loss in torch, with CAL's normalisation."""

from __future__ import annotations

from scorer.extras import needing

with needing(__name__, extra="train"):
    import torch
    import torch.nn.functional as F
    from torch import Tensor

from scorer.errors import WeightsError
from scorer.training.alignment import IGNORE_INDEX


def weighted_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    shift: bool = True,
    ignore_index: int = IGNORE_INDEX,
    total: Tensor | float | None = None,
) -> Tensor:
    """Return Σ w·nll / Σ w over the labelled positions of the whole batch (CAL, arXiv 2405.17871).

    With all weights 1 this is the mean cross-entropy. Unlike in the authors' code, nothing is added to Σ w, so
    multiplying all weights by a constant changes nothing.

    ``labels`` and ``weights`` are aligned with the input ids, as in transformers' causal language models; this
    function shifts them by one::

        input ids   <s>   a   red  kite
        labels     -100   a   red  kite        weights    0   1   5   4
        logits       0    1    2    3
                       ↘    ↘    ↘
        predict         a   red  kite          logits[t] against labels[t + 1], weighted by weights[t + 1]

    Naive form (``shift`` done)::

        nll = -log_softmax(logits.float())[label]
        sum(w * nll for labelled positions) / sum(w for labelled positions)

    Args:
        logits: [B, T, V], any floating dtype; float16 and bfloat16 are computed in float32, and only where labelled.
        labels: int64 [B, T]; ``ignore_index`` marks positions that are not trained on.
        weights: [B, T], finite and ≥ 0 at labelled positions, ignored elsewhere. They receive no gradient.
        shift: False if ``logits[t]`` already predicts ``labels[t]``.
        total: the divisor to use instead of this batch's Σ w: the Σ w of all micro-batches whose gradients are
            accumulated for one optimizer step, or a number of tokens.

    Returns:
        Scalar, float32 (float64 for float64 logits). If Σ w (or ``total``) is 0, because nothing is labelled or all
        weights are 0, the loss and its gradient are 0: a batch that says nothing about its images teaches nothing.

    Raises:
        WeightsError: shapes do not match, or a weight at a labelled position is negative, NaN or infinite.
    """
    if logits.ndim != 3 or labels.shape != logits.shape[:2] or weights.shape != labels.shape:
        raise WeightsError(
            f"logits have shape {tuple(logits.shape)}, labels {tuple(labels.shape)}, weights {tuple(weights.shape)}; "
            "they must be [B, T, V], [B, T] and [B, T]"
        )
    if shift:
        logits, labels, weights = logits[:, :-1], labels[:, 1:], weights[:, 1:]
    labelled = labels != ignore_index
    kept = logits[labelled]  # [K, V]: most positions of a multimodal batch are images and prompts
    if kept.dtype in (torch.float16, torch.bfloat16):
        kept = kept.float()
    nll = F.cross_entropy(kept, labels[labelled], reduction="none")  # [K]
    w = weights[labelled].detach().to(nll.dtype)  # [K]
    _check_weights(w, labelled, shift)
    divisor = w.sum() if total is None else torch.as_tensor(total, dtype=w.dtype, device=w.device)
    return (w * nll).sum() / torch.where(divisor > 0, divisor, torch.ones_like(divisor))


def _check_weights(weights: Tensor, labelled: Tensor, shift: bool) -> None:
    """Check ``weights`` [K] of the positions where ``labelled`` bool [B, T] is true, one position early if shifted."""
    wrong = ~(torch.isfinite(weights) & (weights >= 0))
    if bool(wrong.any()):
        row, position = (int(i) for i in labelled.nonzero()[wrong][0])
        raise WeightsError(
            f"the weight at row {row}, position {position + shift} is {float(weights[wrong][0])}; weights of labelled "
            "positions must be finite and at least 0: mask the position with the ignored label, or correct its weight"
        )


def total_weight(labels: Tensor, weights: Tensor, *, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Return Σ w over the positions that a batch predicts, the divisor of :func:`weighted_cross_entropy`.

    Args:
        labels, weights: [B, T], aligned with the input ids (not shifted); the first position is never predicted.

    Returns:
        Scalar, float32.
    """
    return weights[:, 1:].float()[labels[:, 1:] != ignore_index].sum()
