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
        difference: the largest of any logit or log-probability; infinite where one side alone is NaN.
        limit: what rounding explains, from the dtype and the largest logit.
    """

    difference: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.limit


def compare(fast: Sequence[Pair], plain: Sequence[Pair], dtype: str) -> SelfCheck:
    """Hold ``fast`` against ``plain``: (clean, contrast) scores of the same rows. NaN on both sides is equal."""
    difference, scale = 0.0, 1.0
    for ours, theirs in zip(fast, plain, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            scale = max(scale, float(np.nan_to_num(np.abs(b.logit)).max()))
            for x, y in ((a.logit, b.logit), (a.logprob, b.logprob)):
                both_nan = np.isnan(x) & np.isnan(y)
                difference = max(
                    difference, float(np.nan_to_num(np.abs(x - y)[~both_nan], nan=np.inf).max(initial=0.0))
                )
    return SelfCheck(difference, TOLERANCE[dtype] * scale)
