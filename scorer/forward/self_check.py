"""Check the fast path against two full forward passes, on a few rows of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from scorer.forward.labels import LabelScores
from scorer.types import EncodedSample

TOLERANCE: Final = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 3e-2}
"""How far the fast path may differ from the plain path, relative to the largest logit: rounding and nothing more."""


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """The result of the check on one batch.

    Attributes:
        difference: the largest difference in any logit or log-probability; infinite if only one side is finite.
        limit: the difference that rounding explains, given the dtype and the largest logit.
    """

    difference: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.limit


def compare(fast: Sequence[Sequence[LabelScores]], plain: Sequence[Sequence[LabelScores]], dtype: str) -> SelfCheck:
    """Compare ``fast`` with ``plain``, the scores of the branches of the same rows.

    NaN on both sides counts as equal, and so does the same infinity. Infinite logits do not raise the limit.
    """
    difference, scale = 0.0, 1.0
    for ours, theirs in zip(fast, plain, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            scale = max(scale, float(np.abs(b.logit[np.isfinite(b.logit)]).max(initial=0.0)))
            difference = max(difference, _distance(a.logit, b.logit), _distance(a.logprob, b.logprob))
    return SelfCheck(difference, TOLERANCE[dtype] * scale)


def _distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference; infinite if only one side is NaN or infinite, or if infinities differ in sign."""
    differ = ~((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)))
    return float(np.nan_to_num(np.abs(ours[differ] - theirs[differ]), nan=np.inf, posinf=np.inf).max(initial=0.0))


def of_each_kind(rows: Sequence[EncodedSample]) -> dict[str, list[EncodedSample]]:
    """Return a few rows of each kind: the longest, two that share an image, and the first; each row once."""
    chosen: dict[str, list[EncodedSample]] = {"longest": [max(rows, key=lambda row: row.length)]}
    first_of: dict[bytes, EncodedSample] = {}
    for row in rows:
        other = first_of.setdefault(row.clean.pixels_digest, row)
        if other is not row:
            chosen["shared image"] = [other, row]
            break
    chosen["first"] = [rows[0]]
    taken: set[int] = set()
    for kind, few in chosen.items():
        chosen[kind] = [row for row in few if id(row) not in taken]
        taken.update(map(id, few))
    return chosen
