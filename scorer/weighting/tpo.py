"""The method ``tpo``: a logistic function of the logit gap."""

from __future__ import annotations

from typing import Final

import numpy as np

from scorer.types import Float32Array
from scorer.weighting.record import RawScores, WeightingMethod


def tpo(scores: RawScores) -> Float32Array:
    """Apply TPO's visual-anchored reward, arXiv 2412.14487, as a weight: σ(Δ) + ½, where Δ is the raw logit gap.

    As in the authors' code (alibaba/TPO, ``tpo_trainer.py``), which multiplies the probability of each token of a
    preferred answer by it, inside a preference loss; here it multiplies the token's loss.

    Returns:
        float32 [N] in [0.5, 1.5], 1 where the image changes nothing; NaN where the gap is NaN.
    """
    with np.errstate(over="ignore"):  # e^−Δ = ∞ gives σ = 0
        return np.asarray(1.0 / (1.0 + np.exp(-scores.logit_gap.astype(np.float64))) + 0.5, np.float32)


TPO: Final = WeightingMethod(
    name="tpo",
    label="TPO, logistic",
    words="How far the image moves the token's logit, squeezed between a half and one and a half.",
    formula="1 / (1 + exp(−logit_gap)) + ½",
    paper="TPO, EMNLP 2025",
    arxiv="2412.14487",
    function=tpo,
    columns=("logit_gap",),
    parameters=(),
    alone=True,
)
