"""Compare the contrasts of a run that has several: each further one with the first, token by token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.report.word_gaps import WordGap, mean_gaps
from scorer.contrasts import known_contrast
from scorer.training.rows import ScoredRow
from scorer.types import Float32Array

Float64Array = npt.NDArray[np.float64]

LISTED_WORDS: Final = 6
"""How many words are named in which two contrasts differ most, in each direction."""


@dataclass(frozen=True)
class ComparedContrast:
    """One contrast beside the first.

    Attributes:
        name: as the run names it.
        phrase: what replaced the image, to complete "with …".
        tokens: number of tokens with a finite gap.
        mean: of their log-probability gaps, in nats.
        up, down: shares of tokens that the image makes at least twice as likely, and at most half as likely.
        agreement: Spearman's rank correlation of the gaps with the first contrast's; None for the first itself, and
            where it is undefined.
        more, less: the words whose mean gap exceeds the first contrast's most, or falls short of it most; their means
            are these differences.
    """

    name: str
    phrase: str
    tokens: int
    mean: float
    up: float
    down: float
    agreement: float | None
    more: Sequence[WordGap] = ()
    less: Sequence[WordGap] = ()


def compare(
    contrasts: Sequence[str],
    rows: Sequence[ScoredRow],
    differences: Mapping[str, Sequence[tuple[str, float]]],
    min_count: int,
) -> list[ComparedContrast]:
    """Compare a run's contrasts; empty if it has one.

    Args:
        contrasts: the run's, the first one first.
        rows: rows of the run.
        differences: by further contrast, words with their gap minus the first contrast's, in nats.
        min_count: how often a word must occur to be named.
    """
    if len(contrasts) < 2:
        return []
    first, *further = contrasts
    gaps = {first: _joined([row.scores.logprob_gap for row in rows])}
    gaps |= {name: _joined([row.scores.with_contrast(name).logprob_gap for row in rows]) for name in further}
    found = []
    for name, values in gaps.items():
        finite = values[np.isfinite(values)]
        ranked = mean_gaps(differences.get(name, ()), min_count)
        half = min(LISTED_WORDS, len(ranked) // 2)
        known = known_contrast(name)
        found.append(
            ComparedContrast(
                name=name,
                phrase=name if known is None else known.phrase,
                tokens=len(finite),
                mean=float(finite.mean(dtype=np.float64)) if len(finite) else math.nan,
                up=float((finite >= math.log(2)).mean()) if len(finite) else math.nan,
                down=float((finite <= -math.log(2)).mean()) if len(finite) else math.nan,
                agreement=None if name == first else rank_correlation(gaps[first], values),
                more=ranked[:half],
                less=ranked[len(ranked) - half :][::-1],
            )
        )
    return found


def rank_correlation(first: Float32Array, second: Float32Array) -> float | None:
    """Return Spearman's rank correlation of the pairs that are finite; None if one of the two does not vary."""
    both = np.isfinite(first) & np.isfinite(second)
    ranks = np.stack([_ranks(values[both]) for values in (first, second)])
    if ranks.shape[1] < 2 or (ranks.std(axis=1) == 0).any():
        return None
    return float(np.asarray(np.corrcoef(ranks))[0, 1])


def _ranks(values: Float32Array) -> Float64Array:
    """Return ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Float64Array = np.cumsum(counts) - (counts - 1) / 2
    ranks: Float64Array = means[place]
    return ranks


def _joined(arrays: Sequence[Float32Array]) -> Float32Array:
    return np.concatenate([np.zeros(0, np.float32), *arrays])
