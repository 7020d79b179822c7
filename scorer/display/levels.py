"""Map numbers to the steps of the colour scales, and format them for display."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

GAP_STEPS: Final = (math.log(1.25), math.log(2), math.log(5), math.log(20))
"""Where a gap's colour changes, in nats: the image makes the token 1.25, 2, 5, 20 times as likely (or unlikely)."""
WEIGHT_STEPS: Final = 5


def gap_level(gap: float) -> int:
    """Return the colour step of a gap: −4 (the image contradicts the token) … 0 (it says nothing) … 4; 0 for NaN."""
    if math.isnan(gap):
        return 0
    step = int(np.searchsorted(GAP_STEPS, abs(gap), side="right"))
    return step if gap > 0 else -step


def weight_level(weight: float, low: float, high: float) -> int:
    """Return the colour step of a weight: 0 … 4 in equal parts of [low, high]; 0 for NaN or if high ≤ low."""
    if math.isnan(weight) or high <= low:
        return 0
    return min(WEIGHT_STEPS - 1, max(0, int((weight - low) / (high - low) * WEIGHT_STEPS)))


def signed(value: float, digits: int = 2) -> str:
    """Format a number with its sign: a true minus sign, a dash for NaN, no sign for zero."""
    if math.isnan(value):
        return "–"
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text[1:] if float(f"{value:.{digits}f}") == 0 else text
