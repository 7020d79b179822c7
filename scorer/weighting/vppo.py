"""The method ``vppo``: keep the tokens of each row whose prediction the image changes most."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

import numpy as np

from scorer.types import Float32Array
from scorer.weighting.gaps import sampled_kl
from scorer.weighting.parameters import Parameter, Slider
from scorer.weighting.record import RawScores, WeightingMethod


def vppo(scores: RawScores, *, keep: float = 0.4) -> Float32Array:
    """Apply VPPO's token filter, arXiv 2510.09285, to captions: keep the ⌈keep · n⌉ tokens of the greatest dependency.

    Dependency is :func:`scorer.weighting.gaps.sampled_kl`, at most 10, as in the authors' code (huaixuheqing/VPPO-RL,
    ``dp_actor.py``); earlier tokens first on ties; a stop token counts like any other. The paper filters the policy
    gradient of sampled answers and shapes their advantages as well; a caption has no advantage.

    Returns:
        float32 [N] of zeros and ones; NaN where the dependency is NaN, which is not among the n.
    """
    dependency = np.minimum(sampled_kl(scores), 10.0)
    known = ~np.isnan(dependency)
    count = math.ceil(Fraction(repr(float(keep))) * int(known.sum()))
    kept = np.zeros(len(dependency), np.bool_)
    kept[np.argsort(-dependency, kind="stable")[:count]] = True  # NaN sorts last
    return np.where(known, kept, np.nan).astype(np.float32)


VPPO: Final = WeightingMethod(
    name="vppo",
    label="VPPO, by dependency",
    words="Keeps the tokens of each row whose prediction the image changes most, in either direction, and drops the "
    "others.",
    formula="1 if exp(d) − d − 1 is in the row's top share keep, where d = logprob_contrast − logprob_clean; else 0",
    paper="VPPO, ICLR 2026",
    arxiv="2510.09285",
    function=vppo,
    columns=("logprob_clean", "logprob_contrast"),
    parameters=(
        Parameter(
            name="keep",
            label="top",
            meaning="the share of the row's tokens to keep, those with the greatest dependency",
            type="float",
            default=0.4,
            unit="share",
            exclusive_minimum=0,
            maximum=1,
            slider=Slider(0.01, 1, 0.01),
        ),
    ),
    binary=True,
    whole_row=True,
)
