"""Average the gaps of words over their occurrences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class WordGap:
    """A word's gap, averaged over its occurrences."""

    text: str
    count: int
    mean: float


def mean_gaps(occurrences: Iterable[tuple[str, float]], min_count: int) -> list[WordGap]:
    """Return the case-folded words that occur at least ``min_count`` times, highest mean gap first."""
    gaps: defaultdict[str, list[float]] = defaultdict(list)
    for text, gap in occurrences:
        gaps[text.casefold()].append(gap)
    counted = [WordGap(text, len(seen), float(np.mean(seen))) for text, seen in gaps.items() if len(seen) >= min_count]
    return sorted(counted, key=lambda word: (-word.mean, word.text))
