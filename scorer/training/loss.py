"""The weighted loss, in torch, with CAL's normalisation."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from scorer.errors import WeightsError

IGNORE_INDEX: Final = -100
"""Label of a position that is not trained on; the convention of torch and transformers."""


def weighted_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor, *, shift: bool = True, ignore_index: int = IGNORE_INDEX
) -> Tensor:
    """Σ w·nll / Σ w over the labelled positions of the whole batch (CAL, arXiv 2405.17871).

    Weights of one give the mean cross-entropy. Unlike the authors' code nothing is added to Σ w, so that multiplying
    all weights by a constant changes nothing.

    ``labels`` and ``weights`` are aligned with the input ids, as in transformers' causal language models, and the
    shift by one happens in here::

        input ids   <s>   a   red  kite
        labels     -100   a   red  kite        weights    0   1   5   4
        logits       0    1    2    3
                       ↘    ↘    ↘
        predict         a   red  kite          logits[t] against labels[t + 1], weighed by weights[t + 1]

    Naive form (``shift`` done)::

        nll = -log_softmax(logits.float())[label]
        sum(w * nll for labelled positions) / sum(w for labelled positions)

    Args:
        logits: [B, T, V], any floating dtype; float16 and bfloat16 are computed in float32, and only where labelled.
        labels: int64 [B, T]; ``ignore_index`` marks what is not trained on.
        weights: [B, T], finite and ≥ 0 at labelled positions, ignored elsewhere. Constants: no gradient reaches them.
        shift: False if ``logits[t]`` already predicts ``labels[t]``.

    Returns:
        Scalar, float32 (float64 for float64 logits). Where Σ w is 0, because nothing is labelled or all weights are
        0, the loss is 0 and its gradient is 0: a batch without a word about its pictures teaches nothing.

    Raises:
        WeightsError: shapes that do not match, or a negative, NaN or infinite weight at a labelled position.
    """
    if logits.ndim != 3 or labels.shape != logits.shape[:2] or weights.shape != labels.shape:
        raise WeightsError(
            f"logits have shape {tuple(logits.shape)}, labels {tuple(labels.shape)}, weights {tuple(weights.shape)}; "
            "they must be [B, T, V], [B, T] and [B, T]"
        )
    if shift:
        logits, labels, weights = logits[:, :-1], labels[:, 1:], weights[:, 1:]
    labelled = labels != ignore_index
    kept = logits[labelled]  # [K, V]: most positions of a multimodal batch are pictures and prompts
    if kept.dtype in (torch.float16, torch.bfloat16):
        kept = kept.float()
    nll = F.cross_entropy(kept, labels[labelled], reduction="none")  # [K]
    w = weights[labelled].detach().to(nll.dtype)  # [K]
    wrong = ~(torch.isfinite(w) & (w >= 0))
    if bool(wrong.any()):
        row, position = (int(i) for i in labelled.nonzero()[wrong][0])
        raise WeightsError(
            f"the weight at row {row}, position {position + shift} is {float(w[wrong][0])}; weights of labelled "
            "positions must be finite and at least 0: mask the position with the ignored label, or mend its weight"
        )
    total = w.sum()
    return (w * nll).sum() / torch.where(total > 0, total, torch.ones_like(total))
