"""The method ``pgpo``: suppress tokens below a threshold of dependency, amplify those above it."""

from __future__ import annotations

from typing import Final

import numpy as np

from scorer.types import Float32Array
from scorer.weighting.gaps import sampled_kl
from scorer.weighting.parameters import Parameter, Slider
from scorer.weighting.record import RawScores, WeightingMethod


def pgpo(scores: RawScores, *, threshold: float = 0.4, boost: float = 2.0) -> Float32Array:
    """Apply PGPO's token weights, arXiv 2604.01840, to captions.

    With dependency S (:func:`scorer.weighting.gaps.sampled_kl`), ln(1 + S) is scaled to I in [0, 1] by the row's least
    and greatest. The weight is I / ``threshold`` below the threshold and 1 + ``boost``·(I − threshold)/(1 − threshold)
    from it on, then normalised to a mean of 1 over the row. The paper multiplies the advantages of sampled answers by
    it. A stop token counts like any other.

    Returns:
        float32 [N] ≥ 0 with mean 1; all ones if the image changes all tokens alike (then I is 0/0). One NaN makes the
        whole row NaN.
    """
    dependency = np.log1p(sampled_kl(scores))
    least, greatest = dependency.min(initial=np.inf), dependency.max(initial=-np.inf)
    if not greatest > least:
        undefined = np.isnan(dependency).any()
        return np.full(len(dependency), np.nan if undefined else 1.0, np.float32)
    scaled = (dependency - least) / (greatest - least)
    weights = np.where(scaled < threshold, scaled / threshold, 1.0 + boost * (scaled - threshold) / (1.0 - threshold))
    return np.asarray(len(weights) * weights / weights.sum(), np.float32)


PGPO: Final = WeightingMethod(
    name="pgpo",
    label="PGPO, by dependency",
    words="Raises the weight of tokens whose prediction the image changes much, in either direction, and lowers the "
    "others'; the weights of a row have a mean of 1.",
    formula="I / threshold if I < threshold, else 1 + boost · (I − threshold) / (1 − threshold), normalised to mean 1 "
    "over the row, where I is ln(exp(d) − d), d = logprob_contrast − logprob_clean, scaled to the row's 0 to 1",
    paper="PGPO, 2026",
    arxiv="2604.01840",
    function=pgpo,
    columns=("logprob_clean", "logprob_contrast"),
    parameters=(
        Parameter(
            name="threshold",
            label="threshold",
            meaning="the scaled dependency from which a token is amplified",
            type="float",
            default=0.4,
            exclusive_minimum=0,
            exclusive_maximum=1,
            slider=Slider(0.05, 0.95, 0.05),
        ),
        Parameter(
            name="boost",
            label="boost",
            meaning="how much more than the threshold's the greatest weight is, before it is normalised",
            type="float",
            default=2.0,
            minimum=0,
            slider=Slider(0, 10, 0.1),
        ),
    ),
    whole_row=True,
)
