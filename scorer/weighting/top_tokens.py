"""The method ``top-tokens``: keep the tokens of the dataset that the image helps most, and drop the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from scorer.columns import IS_STOP
from scorer.types import Float32Array
from scorer.weighting.dataset_gaps import DatasetGaps
from scorer.weighting.parameters import Parameter, Slider, Value
from scorer.weighting.record import RawScores, WeightingMethod
from scorer.weighting.vig_row import vig_row


def top_tokens(scores: RawScores, *, threshold: float | None = None, keep: float = 0.25) -> Float32Array:
    """Select tokens by VIG's gain, arXiv 2602.17186, from the whole dataset: keep those whose gain is among the best.

    Unlike :mod:`scorer.weighting.vig`, which takes its threshold from rows, this one keeps a known share of all tokens,
    in whichever rows they are. A stop token is always kept, as in :func:`scorer.weighting.vig_row.vig_row`.

    Returns:
        float32 [N] of zeros and ones; NaN where the gain is NaN.

    Raises:
        ValueError: ``threshold`` is None; :class:`scorer.weights.Method` finds it or says what is missing.
    """
    if threshold is None:
        raise ValueError("top-tokens needs a threshold, which the dataset's gaps give")
    return vig_row(scores, threshold=threshold)


def threshold_of(gaps: DatasetGaps, params: Mapping[str, Value]) -> dict[str, Value]:
    """Return the ``threshold`` that the top ``keep`` of the tokens reach. Raise ValueError if no row was scored."""
    keep = params["keep"]
    assert isinstance(keep, float)
    threshold, _ = gaps.tokens.top(keep)
    return {"threshold": threshold}


TOP_TOKENS: Final = WeightingMethod(
    name="top-tokens",
    label="Top tokens",
    words="Keeps the tokens of the dataset whose probability the image raises most, and drops the others.",
    formula="1 if logprob_clean − logprob_contrast ≥ threshold, else 0; without a threshold, the one that the top "
    "share keep of the dataset's tokens reach; 1 for a stop token",
    paper="after VIG, 2026",
    arxiv="2602.17186",
    function=top_tokens,
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
            meaning="the share of the dataset's tokens to keep, those with the largest gaps",
            type="float",
            default=0.25,
            unit="share",
            exclusive_minimum=0,
            maximum=1,
            slider=Slider(0.01, 1, 0.01),
        ),
    ),
    of_dataset=("threshold",),
    from_gaps=threshold_of,
    binary=True,
    alone=True,
)
