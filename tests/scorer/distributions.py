"""What the distribution columns mean, written out in float64 from all logits of both branches."""

from __future__ import annotations

import numpy as np
import torch

from scorer.types import BoolArray

Columns = dict[str, np.ndarray]


def naive(clean: torch.Tensor, contrast: torch.Tensor, labels: np.ndarray) -> Columns:
    """The columns of N labels from logits [N, V] of each branch; of ``top1``, how far the label is below the top."""
    logp, logq = (logits.double().log_softmax(-1).numpy() for logits in (clean, contrast))
    p, q = np.exp(logp), np.exp(logq)
    logm = np.log((p + q) / 2)

    def kl(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.asarray((weights * (first - second)).sum(-1))

    return {
        "kl": kl(p, logp, logq),
        "kl_reverse": kl(q, logq, logp),
        "js": (kl(p, logp, logm) + kl(q, logq, logm)) / 2,
        "entropy_clean": -(p * logp).sum(-1),
        "entropy_contrast": -(q * logq).sum(-1),
        "top1_clean": _margin(logp, labels),
        "top1_contrast": _margin(logq, labels),
    }


def _margin(logprobs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.asarray(logprobs[np.arange(len(labels)), labels] - logprobs.max(-1))


def error(found: Columns, expected: Columns) -> float:
    """The largest difference, relative to max(1, |x|), of columns in nats; infinite if it is no number, or a flag is
    wrong.

    A flag may be either where the label is within 1e-4 of the top.
    """
    largest = 0.0
    for name, values in expected.items():
        assert found[name].shape == values.shape
        if found[name].dtype == np.bool_:
            tie: BoolArray = (values < 0) & (values > -1e-4)
            largest = np.inf if ((found[name] != (values == 0)) & ~tie).any() else largest
        else:
            relative = np.abs(found[name] - values) / np.maximum(1, np.abs(values))
            largest = max(largest, float(np.nan_to_num(relative, nan=np.inf).max()))  # max() passes over NaN
    return largest
