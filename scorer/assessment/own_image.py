"""Compare what a caption gains from its own image with what it gains from another row's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scorer.results import Result, TokenScores
from scorer.statistics import Estimate, auroc, bootstrap


@dataclass(frozen=True, slots=True)
class OwnImage:
    """Whether captions gain more from their own images than from others.

    Attributes:
        auroc: area under the curve of a caption's mean log-probability gap, with its own image against another's; 0.5
            if the model looks at nothing.
        wins: the share of rows whose caption is more likely with its own image; a tie counts half.
    """

    auroc: Estimate
    wins: Estimate


def compare_images(scored: Sequence[Result], shuffled: Sequence[Result], seed: int) -> OwnImage:
    """Compare rows scored against the run's contrast with the same rows scored against ``shuffled``.

    The gap with another row's image is log P(text | other image) − log P(text | contrast), a mean over the text's
    tokens without stop tokens. Rows that failed in either, or have no image, are left out.
    """
    own, other = [], []
    for first, second in zip(scored, shuffled, strict=True):
        if not isinstance(first, TokenScores) or not isinstance(second, TokenScores) or first.text_only:
            continue
        words = ~first.is_stop
        if not words.any():
            continue
        base = first.logprob_contrast[words].mean(dtype=np.float64)
        own.append(first.logprob_clean[words].mean(dtype=np.float64) - base)
        other.append(second.logprob_contrast[~second.is_stop].mean(dtype=np.float64) - base)
    gains, others = np.array(own), np.array(other)
    ahead = (gains > others) + 0.5 * (gains == others)
    return OwnImage(
        bootstrap(len(own), lambda rows: auroc(gains[rows], others[rows]), seed=seed),
        bootstrap(len(own), lambda rows: float(ahead[rows].mean()), seed=seed),
    )
