"""The method ``vig-row``: keep the tokens of each row that the image helps most, and drop the rest."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

import numpy as np

from scorer.columns import IS_STOP
from scorer.types import Float32Array
from scorer.weighting.gaps import logprob_gap
from scorer.weighting.parameters import Parameter, Slider
from scorer.weighting.record import RawScores, WeightingMethod


def vig_row(scores: RawScores, *, threshold: float | None = None, keep: float = 0.7) -> Float32Array:
    """Select tokens by VIG's gain, arXiv 2602.17186, within each row: keep those with a high gain, drop the rest.

    The gain is ``logprob_clean − logprob_contrast`` in nats, the logarithm of the factor by which the image lowers
    the token's perplexity (VIG's own contrast is ``blur``). With ``threshold``, keep the tokens with gain ≥ threshold;
    without it, keep the ⌈keep · n⌉ tokens with the highest gain among the n whose gain is defined, earlier tokens first
    on ties. VIG itself has one threshold for the whole dataset, and selects rows by it, too
    (:mod:`scorer.weighting.vig`).

    A stop token is always kept, and is none of the n: what ends a text depends little on the image, and a model that is
    trained on rows without it does not learn to stop. So the other tokens' weights are the same with and without it.

    Returns:
        float32 [N] of zeros and ones; NaN where the gain is NaN.
    """
    gap = logprob_gap(scores)
    known = ~np.isnan(gap)
    stop = np.asarray(scores.optional.get(IS_STOP, np.zeros(len(gap), dtype=np.bool_)))
    defined = known & ~stop
    if threshold is None:
        # A fraction, because 0.07 * 100 exceeds 7 in floating point and would round up to 8.
        count = math.ceil(Fraction(repr(float(keep))) * int(defined.sum()))
        kept = np.zeros(len(gap), dtype=np.bool_)
        kept[np.argsort(np.where(defined, -gap, np.nan), kind="stable")[:count]] = True  # NaN sorts last
    else:
        kept = gap >= threshold
    return np.where(known, kept | stop, np.nan).astype(np.float32)


VIG_ROW: Final = WeightingMethod(
    name="vig-row",
    label="VIG, within a row",
    words="Keeps the tokens of each row whose probability the image raises most, and drops the others.",
    formula="1 if logprob_clean − logprob_contrast ≥ threshold, or without one if in the row's top share keep; else 0; "
    "1 for a stop token",
    paper="after VIG, 2026",
    arxiv="2602.17186",
    function=vig_row,
    columns=("logprob_clean", "logprob_contrast"),
    if_given=(IS_STOP,),
    parameters=(
        Parameter(
            name="threshold",
            label="gap from",
            meaning="the smallest gap of a kept token; with null, keep decides",
            type="float",
            default=None,
            unit="nats",
            nullable=True,
            overrides="keep",
            slider=Slider(-2, 5, 0.05, start=0.5),
        ),
        Parameter(
            name="keep",
            label="top",
            meaning="the share of the row's tokens to keep, those with the largest gaps",
            type="float",
            default=0.7,
            unit="share",
            exclusive_minimum=0,
            maximum=1,
            slider=Slider(0.01, 1, 0.01),
        ),
    ),
    binary=True,
    whole_row=True,
)
