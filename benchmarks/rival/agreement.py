"""Compare vLLM's log-probabilities with ours, label by label, in both branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from scorer.results import TokenScores

LIMITS: Final = {"float32": 0.02, "bfloat16": 1.0}
"""The largest difference by dtype, in nats: the sides resize images with different code, which moves some pixels by one
of 255 levels. Another row's, another token's or an undefined value differs by more."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many log-probabilities were compared, and the largest and the mean |difference|, in nats."""

    count: int
    max: float
    mean: float

    def document(self, limit: float) -> dict[str, Any]:
        """Return plain data, with whether the largest difference is within ``limit``; NaN is not."""
        return {"count": self.count, "max": self.max, "mean": self.mean, "agrees": self.max <= limit}


def agreement(
    ours: Sequence[TokenScores], clean: Sequence[Sequence[float]], contrast: Sequence[Sequence[float]]
) -> Agreement:
    """Compare rows in order. Raises ValueError if rows or their labels are not the same in number."""
    differences = []
    for row, theirs in zip(ours, zip(clean, contrast, strict=True), strict=True):
        for own, other in zip((row.logprob_clean, row.logprob_contrast), theirs, strict=True):
            if len(own) != len(other):
                raise ValueError(f"row {row.sample_id} has {len(own)} labels, and vLLM returned {len(other)}")
            differences.append(np.abs(own - np.asarray(other, dtype=np.float64)))
    every = np.concatenate(differences)
    return Agreement(len(every), float(every.max()), float(every.mean()))
