"""Scores of captions whose words all have a label, and the area under a curve that they give, with its interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scorer.mini.language.labels import auroc
from scorer.results import TokenScores

STOP = "stop"
"""The label of stop tokens, which are in no word of a caption."""

Column = npt.NDArray[np.float64]
Score = Callable[["Scored"], Column]


@dataclass(frozen=True, slots=True)
class Scored:
    """One caption's scores: `labels` [N], the engine's `scores`, and `shift` [N], the difference of the vocabulary's
    mean logit between the image and the contrast input."""

    labels: npt.NDArray[np.object_]
    scores: TokenScores
    shift: Column


Pair = tuple[Column, Column]
"""The scores of one caption's tokens with either of two labels."""


def split(rows: Sequence[Scored], columns: Sequence[Column], high: str, low: str) -> list[Pair]:
    """Return the values of the tokens labelled `high` and `low`, caption by caption, of one column a caption."""
    pairs = zip(rows, columns, strict=True)
    return [(column[row.labels == high], column[row.labels == low]) for row, column in pairs]


def interval(pairs: Sequence[Pair], resamples: int, seed: int) -> list[float]:
    """Return the AUROC and the bounds of its 95 % interval: percentile bootstrap over captions."""

    def area(chosen: npt.NDArray[np.int64]) -> float:
        return auroc(np.concatenate([pairs[k][0] for k in chosen]), np.concatenate([pairs[k][1] for k in chosen]))

    rng = np.random.default_rng(seed)
    drawn = [area(rng.integers(len(pairs), size=len(pairs))) for _ in range(resamples)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return [area(np.arange(len(pairs))), float(low), float(high)]


def markdown_cell(figure: Sequence[float]) -> str:
    return "{:.3f} ({:.3f}–{:.3f})".format(*figure)
