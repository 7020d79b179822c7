"""The method ``prior``: how unexpected a token is without the image."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scorer.columns import IS_STOP, LOGPROB_TEXT
from scorer.types import Float32Array
from scorer.weighting.parameters import Parameter, Slider
from scorer.weighting.record import RawScores, WeightingMethod


def prior(scores: RawScores, *, alpha: float = 1.0) -> Float32Array:
    """Apply PRIOR, arXiv 2505.08971: w = (1 − P_ref(t))^α, normalised to a mean of 1 over the sample (k·w / Σw).

    P_ref is the token's probability by a language model trained on the captions, as in PRIOR, where a reader has joined
    one (:data:`scorer.columns.LOGPROB_TEXT`). Elsewhere it is the token's probability without the image,
    ``logprob_contrast``; the closest contrast of a VLM is ``removed``.

    Returns:
        float32 [N] ≥ 0 with mean 1; all ones if every token is certain without the image (then Σw = 0, the formula is
        0/0, and no token deserves more than another). One NaN makes the whole sample NaN: its Σw is unknown. A stop
        token that the joined text reference does not know has weight 1, the mean, and does not count among the others.
    """
    text = scores.optional.get(LOGPROB_TEXT)
    if text is None:
        return _prior(scores.logprob_contrast, alpha)
    known = ~(np.isnan(text) & np.asarray(scores.optional.get(IS_STOP, False), np.bool_))
    weights = np.ones(len(text), np.float32)
    weights[known] = _prior(text[known], alpha)
    return weights


def _prior(logprobs: npt.NDArray[Any], alpha: float) -> Float32Array:
    """Return the weights of tokens with these reference log-probabilities, [N], in nats; their mean is 1."""
    # 1 - exp(x) loses all digits for x near 0; expm1 keeps them. Rounding can push a log-probability above 0.
    surprise = -np.expm1(np.minimum(logprobs.astype(np.float64), 0.0))
    largest = surprise.max(initial=0.0)
    if largest == 0:
        return np.ones(len(surprise), dtype=np.float32)
    w = np.power(surprise / largest, alpha)  # scaled, so that a large α cannot turn every weight into 0
    return np.asarray(len(w) * w / w.sum(), dtype=np.float32)


PRIOR: Final = WeightingMethod(
    name="prior",
    label="PRIOR, by surprise",
    words="How unexpected the token is without the image, or to a language model trained on the captions; the weights "
    "of a row have a mean of 1.",
    formula="(1 − exp(logprob_contrast))^alpha, normalised to mean 1 over the row",
    paper="PRIOR, 2025",
    arxiv="2505.08971",
    function=prior,
    columns=("logprob_contrast",),
    text_reference=True,
    parameters=(
        Parameter(
            name="alpha",
            label="α",
            meaning="the exponent; 0 weights all tokens equally, higher values favour surprising tokens more",
            type="float",
            default=1.0,
            minimum=0,
            slider=Slider(0, 5, 0.1),
        ),
    ),
    whole_row=True,
)
