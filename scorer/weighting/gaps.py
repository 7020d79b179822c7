"""What the image does to a token, in the terms that several methods share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from scorer.weighting.record import RawScores


def logprob_gap(scores: RawScores) -> npt.NDArray[np.float64]:
    """Return the log-probability gap, float64 [N], in nats; NaN where both are −∞."""
    with np.errstate(invalid="ignore"):
        return scores.logprob_clean.astype(np.float64) - scores.logprob_contrast.astype(np.float64)


def probability(logprobs: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the probabilities of these log-probabilities, at most 1: rounding can push a logarithm above 0."""
    return np.exp(np.minimum(logprobs.astype(np.float64), 0.0))


def sampled_kl(scores: RawScores) -> npt.NDArray[np.float64]:
    """Return the k3 estimate of KL(with image ‖ without) from the label alone: float64 [N], in nats, ≥ 0.

    With d = ``logprob_contrast − logprob_clean``, clamped to ±20, it is e^d − d − 1 (Schulman, "Approximating KL
    Divergence", 2020). It has no sign: a word that the image contradicts scores higher than one that it brings.
    NaN where both log-probabilities are −∞.
    """
    d = np.clip(-logprob_gap(scores), -20.0, 20.0)
    return np.maximum(np.expm1(d) - d, 0.0)
