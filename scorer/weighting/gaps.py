"""What the image does to a token, as methods read it."""

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
