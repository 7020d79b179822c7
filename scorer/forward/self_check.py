"""The fast path held against two full forward passes: what a process finds out on its first batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from scorer.forward import LabelScores

Pair = tuple[LabelScores, LabelScores]

TOLERANCE: Final = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 3e-2}
"""How far the fast path may be from the plain one, relative to the largest logit: rounding, and nothing more."""


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """The verdict on one batch.

    Attributes:
        difference: the largest of any logit or log-probability; infinite where one side alone is not finite.
        limit: what rounding explains, from the dtype and the largest logit.
    """

    difference: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.limit


def compare(fast: Sequence[Pair], plain: Sequence[Pair], dtype: str) -> SelfCheck:
    """Hold ``fast`` against ``plain``: (clean, contrast) scores of the same rows.

    NaN on both sides is equal, and so is the same infinity; what is infinite does not widen the limit.
    """
    difference, scale = 0.0, 1.0
    for ours, theirs in zip(fast, plain, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            scale = max(scale, float(np.abs(b.logit[np.isfinite(b.logit)]).max(initial=0.0)))
            difference = max(difference, _distance(a.logit, b.logit), _distance(a.logprob, b.logprob))
    return SelfCheck(difference, TOLERANCE[dtype] * scale)


def _distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference; infinite where one side alone is NaN or infinite, or the signs of infinities differ."""
    differ = ~((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)))
    return float(np.nan_to_num(np.abs(ours[differ] - theirs[differ]), nan=np.inf, posinf=np.inf).max(initial=0.0))
