"""The method ``grounded``: teach what the image supports, and most of all what it brings."""

from __future__ import annotations

from typing import Final

import numpy as np

from scorer.types import Float32Array
from scorer.weighting.gaps import probability
from scorer.weighting.parameters import Parameter, Slider
from scorer.weighting.record import RawScores, WeightingMethod


def grounded(scores: RawScores, *, k: float = 4.0, epsilon: float = 0.001) -> Float32Array:
    """Weigh a token by what the image does to it: min(1, P′/Q′) + k·max(P′ − Q′, 0)/P′, from the label alone.

    P and Q are its probabilities with and without the image. Couple the two predictions so that they agree as often as
    they can (the maximal coupling): a word written without the image stays, once it is seen, with probability
    min(1, P/Q), and a word written with it would not have been written without with probability max(P − Q, 0)/P.
    The weight is 1 for the first, which a word that the image contradicts loses, and ``k`` more for the second.

    P′ = P + ``epsilon`` and Q′ = Q + ``epsilon``: a ratio of two probabilities below ``epsilon`` is noise, as for a
    rare name or a language that the reference does not read. If both are at most δ, the weight differs from 1 by no
    more than max(1, k)·δ/(δ + ε), so where the reference knows nothing, every word weighs the same. Each token is
    weighed alone, a stop token like any other.

    Returns:
        float32 [N] in [ε/(1 + ε), 1 + k/(1 + ε)], rising with P and falling with Q; NaN where P or Q is NaN. The
        weight is 1 where the image changes nothing; no mean is enforced.
    """
    p, q = (probability(logprobs) + epsilon for logprobs in (scores.logprob_clean, scores.logprob_contrast))
    return np.asarray(np.minimum(1.0, p / q) + k * np.maximum(p - q, 0.0) / p, dtype=np.float32)


GROUNDED: Final = WeightingMethod(
    name="grounded",
    label="Grounded",
    words="Takes the weight from words that the image contradicts, and gives more to words that it brings.",
    formula="min(1, p / q) + k · max(p − q, 0) / p, where p = exp(logprob_clean) + epsilon and "
    "q = exp(logprob_contrast) + epsilon",
    paper="tokensight, 2026",
    arxiv=None,
    function=grounded,
    columns=("logprob_clean", "logprob_contrast"),
    parameters=(
        Parameter(
            name="k",
            label="k",
            meaning="how much more a word weighs that only the image explains; 0 only gates",
            type="float",
            default=4.0,
            minimum=0,
            slider=Slider(0, 20, 0.1),
        ),
        Parameter(
            name="epsilon",
            label="ε",
            meaning="the probability below which the reference model is not believed",
            type="float",
            default=0.001,
            exclusive_minimum=0,
            maximum=1,
            slider=Slider(0.001, 0.2, 0.001),
        ),
    ),
    alone=True,
)
