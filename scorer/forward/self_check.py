"""Check the fast path against two full forward passes, on a few rows of each kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from scorer.forward.labels import ENTROPY, JS, KL, KL_REVERSE, TOP_LOGIT, LabelScores
from scorer.types import EncodedSample, Float32Array

TOLERANCE: Final = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 3e-2}
"""How far the fast path may differ from the plain path, relative to the largest logit: rounding and nothing more."""

_AMPLIFIED: Final[dict[str, Callable[[Float32Array], Float32Array]]] = {
    TOP_LOGIT: np.ones_like,
    ENTROPY: lambda nats: np.maximum(1, 2 * nats),
    KL: lambda nats: 3 + 2 * nats,
    KL_REVERSE: lambda nats: 3 + 2 * nats,
    JS: lambda nats: 1 + 2 * nats,
}
"""How far a quantity of a whole prediction moves, to first order and at most, if no logit moves by more than 1; from
its value, in nats.

With s = −log p, dH/dz = p·(s − H), and E|s − H| ≤ 2 H since s ≥ 0. With d = log p − log q, dKL/dz is p·(d − KL) in the
clean branch, where E|d − KL| ≤ 2 KL + 2 / e since E[d⁻] ≤ 1 / e, and q − p in the contrast, where Σ|q − p| ≤ 2. JS is
half of two such sums against the mean of p and q: at most 2 JS + 2 / e.
"""


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """The result of the check on one batch.

    Attributes:
        difference: the largest difference in any logit or log-probability, and that in logits which would explain the
            one in a quantity of a whole prediction; infinite if only one side is finite.
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
            for name, values in b.distribution.items():
                scaled = _AMPLIFIED[name](np.nan_to_num(values, posinf=0, neginf=0))
                difference = max(difference, _distance(a.distribution[name] / scaled, values / scaled))
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
