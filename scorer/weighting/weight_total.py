"""Add up a dataset's weights, so that a reader can scale them to a mean of 1 and learning rates carry over.

The tokens of scored rows count, stop tokens like any other. Rows without an image do not: their weights are 1 and stay
so. A shard's sum is exact and rounded once, and a dataset's is the exact sum of those, rounded once more. So neither
units nor the order in which they finish change a bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np

from scorer.types import Float32Array

_MANTISSA: Final = 24
"""Significant bits of a float32."""


@dataclass(frozen=True, slots=True)
class WeightTotal:
    """The sum of a set of weights, and how many there are."""

    sum: float = 0.0
    tokens: int = 0

    @classmethod
    def merged(cls, totals: Iterable[WeightTotal]) -> WeightTotal:
        """Add up totals. The result does not depend on their order."""
        found = list(totals)
        return cls(math.fsum(one.sum for one in found), sum(one.tokens for one in found))

    @property
    def mean(self) -> float:
        """The mean weight; NaN without tokens."""
        return self.sum / self.tokens if self.tokens else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return the total as plain data."""
        return {"sum": self.sum, "tokens": self.tokens}

    @classmethod
    def from_dict(cls, document: Any) -> WeightTotal:
        """Parse what :meth:`to_dict` returns. Raise ValueError if it is damaged."""
        total, tokens = [document.get(name) if isinstance(document, Mapping) else None for name in ("sum", "tokens")]
        if type(total) is not float or not 0 <= total < math.inf or type(tokens) is not int or tokens < 0:
            raise ValueError(f"the total of its weights is {document!r:.60}, not a sum and a number of tokens")
        return cls(total, tokens)


class ExactTotal:
    """Adds up weights without rounding, however they are divided into parts."""

    def __init__(self) -> None:
        self._sum, self._tokens = Fraction(), 0

    def add(self, weights: Float32Array) -> None:
        """Add weights, float32 [N]. Raise ValueError if one is NaN or infinite."""
        bad = int((~np.isfinite(weights)).sum())
        if bad:
            raise ValueError(f"{bad} of {len(weights)} weights are NaN or infinite")
        fractions, exponents = np.frexp(weights.astype(np.float64))
        whole = (fractions * 2**_MANTISSA).astype(np.int64)  # exact: a float32 has no more bits
        for exponent in np.unique(exponents).tolist():
            self._sum += int(whole[exponents == exponent].sum()) * Fraction(2) ** (exponent - _MANTISSA)
        self._tokens += len(weights)

    @property
    def rounded(self) -> WeightTotal:
        """What was added, the sum rounded once."""
        return WeightTotal(float(self._sum), self._tokens)
