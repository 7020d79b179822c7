"""The method ``vig``: one threshold for the whole dataset, for rows and for their tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from scorer.types import Float32Array
from scorer.weighting.dataset_gaps import DatasetGaps, row_mean
from scorer.weighting.gaps import logprob_gap
from scorer.weighting.parameters import Parameter, Slider, Value
from scorer.weighting.record import RawScores, WeightingMethod


def vig(scores: RawScores, *, threshold: float | None = None, keep: float = 0.7) -> Float32Array:
    """Apply VIG as published, arXiv 2602.17186: train on the rows and tokens whose gain reaches one threshold.

    A token's gain is ``logprob_clean − logprob_contrast`` in nats, and a row's the mean over its tokens, the logarithm
    of the factor by which the image lowers its perplexity (VIG's own contrast is ``blur``). The threshold is the gain
    that the top ``keep`` of the dataset's rows reach (:func:`threshold_of`). Rows below it are dropped; of the others,
    the tokens that reach it are kept, the stop token no more than any other. A row without an image is kept whole
    (:func:`scorer.weights.weights_of`).

    Returns:
        float32 [N] of zeros and ones; NaN for the whole row if the gain of a token is not finite.

    Raises:
        ValueError: ``threshold`` is None; :class:`scorer.weights.Method` finds it or says what is missing.
    """
    if threshold is None:
        raise ValueError("vig needs a threshold, which the dataset's gaps give")
    gap = logprob_gap(scores)
    if not np.isfinite(gap).all():
        return np.full(len(gap), np.nan, np.float32)
    if not len(gap) or row_mean(gap) < threshold:
        return np.zeros(len(gap), np.float32)
    return (gap >= threshold).astype(np.float32)


def threshold_of(gaps: DatasetGaps, params: Mapping[str, Value]) -> dict[str, Value]:
    """Return the ``threshold`` that the top ``keep`` of the rows reach. Raise ValueError if no row was scored."""
    keep = params["keep"]
    assert isinstance(keep, float)
    threshold, _ = gaps.rows.top(keep)
    return {"threshold": threshold}


VIG: Final = WeightingMethod(
    name="vig",
    label="VIG",
    words="Keeps the rows that the image helps most, and of them the tokens that it helps as much; drops the others.",
    formula="1 if logprob_clean − logprob_contrast ≥ threshold and its mean over the row is, too, else 0; without a "
    "threshold, the one that the top share keep of the dataset's rows reach",
    paper="VIG, 2026",
    arxiv="2602.17186",
    function=vig,
    columns=("logprob_clean", "logprob_contrast"),
    parameters=(
        Parameter(
            name="threshold",
            label="gap from",
            meaning="the smallest gap of a kept token, and the smallest mean of a kept row; with null, keep decides",
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
            meaning="the share of the dataset's rows to keep, those with the largest mean gaps",
            type="float",
            default=0.7,
            unit="share",
            exclusive_minimum=0,
            maximum=1,
            slider=Slider(0.01, 1, 0.01),
        ),
    ),
    of_dataset=("threshold",),
    from_gaps=threshold_of,
    binary=True,
    whole_row=True,
)
