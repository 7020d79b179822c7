"""Round raw scores to fewer bits, so that they compress: they stay float32, and every reader reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from scorer import columns
from scorer.config import ALL_BITS
from scorer.results import TokenScores
from scorer.types import Float32Array


def rounded(scores: TokenScores, bits: int) -> TokenScores:
    """Return scores whose float32 raw columns keep ``bits`` of the 23 bits after the leading one; ties go to even.

    The relative error is at most 2^-(bits + 1): with 10 bits, that of float16, but for its overflow and its steps
    around 0. NaN and infinity stay.
    """
    if bits == ALL_BITS:
        return scores
    arrays = scores.arrays
    new: dict[str, Any] = {c.name: _rounded(arrays[c.name], bits) for c in columns.raw(arrays) if c.dtype == np.float32}
    optional = {name: new.pop(name, values) for name, values in scores.optional.items()}
    return replace(scores, optional=optional, **new)


def _rounded(values: Float32Array, bits: int) -> Float32Array:
    dropped = ALL_BITS - bits
    as_integers = values.view(np.uint32)
    half = np.uint32((1 << (dropped - 1)) - 1)
    even = (as_integers >> np.uint32(dropped)) & np.uint32(1)
    kept = (as_integers + half + even) & np.uint32(0xFFFFFFFF ^ ((1 << dropped) - 1))
    return np.where(np.isfinite(values), kept.view(np.float32), values)
