"""Measure how much the scores owe to the dtype, to the batch that a row is in, and to the choice of contrast."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from scorer.config import DType
from scorer.contrasts import CONTRASTS
from scorer.engine import Scorer
from scorer.errors import ModelError
from scorer.results import Result, TokenScores
from scorer.statistics import Numbers, rank_correlation
from scorer.types import Sample

log = logging.getLogger(__name__)

OTHER_DTYPE: Final[dict[DType, DType]] = {"float32": "bfloat16", "bfloat16": "float32", "float16": "float32"}


@dataclass(frozen=True, slots=True)
class Numerics:
    """What else the log-probability gaps depend on, over the tokens of a few rows.

    Attributes:
        rows: how many rows were scored for it.
        dtype, other_dtype: the run's dtype, and the one that it is compared with.
        dtype_error: root mean square of the differences between the two, in nats; NaN if the other does not fit in
            memory beside the first.
        batch_error: the largest difference between a row scored alone and among others, in nats.
        other_contrast: the contrast that the run's is compared with; None if no other is defined for the model.
        contrast_agreement: the rank correlation of both contrasts' gaps; NaN without another.
    """

    rows: int
    dtype: DType
    other_dtype: DType
    dtype_error: float
    batch_error: float
    other_contrast: str | None
    contrast_agreement: float


def measure_numerics(scorer: Scorer, samples: Sequence[Sample]) -> Numerics:
    """Score a few samples again, in other ways."""
    together = scorer.score(samples)
    alone = [result for sample in samples for result in scorer.score([sample])]
    other_dtype = OTHER_DTYPE[scorer.config.dtype]
    contrast = _second_contrast(scorer)
    ours, theirs = _paired(together, [] if contrast is None else scorer.with_contrast(contrast).score(samples))
    batch = _paired(together, alone)
    return Numerics(
        rows=len(samples),
        dtype=scorer.config.dtype,
        other_dtype=other_dtype,
        dtype_error=_rms(*_paired(together, _in_dtype(scorer, samples, other_dtype))),
        batch_error=float(np.abs(batch[0] - batch[1]).max(initial=0.0)),
        other_contrast=contrast,
        contrast_agreement=rank_correlation(ours, theirs),
    )


def _second_contrast(scorer: Scorer) -> str | None:
    """Return the first other contrast that hides all of every image and is defined for the model, if any."""
    defined = (CONTRASTS[name] for name in scorer.checkpoint.family.contrasts)
    return next((one.name for one in defined if one.constant and one.name != scorer.config.contrast), None)


def _in_dtype(scorer: Scorer, samples: Sequence[Sample], dtype: DType) -> list[Result]:
    """Score in another dtype, with a second copy of the model; return nothing if it does not fit."""
    import torch

    try:
        other = Scorer(scorer.checkpoint, replace(scorer.config, dtype=dtype))
    except (ModelError, torch.OutOfMemoryError) as error:
        log.warning("the model was not loaded in %s, so dtypes were not compared: %s", dtype, error)
        return []
    try:
        return other.score(samples)
    finally:
        other.close()


def _paired(first: Sequence[Result], second: Sequence[Result]) -> tuple[Numbers, Numbers]:
    """Return the gaps of the tokens of rows with images that were scored both times, float64 [N] each."""
    pairs = [
        (one.logprob_gap, other.logprob_gap)
        for one, other in zip(first, second, strict=False)
        if isinstance(one, TokenScores) and isinstance(other, TokenScores) and not one.text_only
    ]
    empty = np.zeros(0, np.float32)
    ours, theirs = (np.concatenate([empty, *(pair[k] for pair in pairs)]).astype(np.float64) for k in (0, 1))
    return ours, theirs


def _rms(first: Numbers, second: Numbers) -> float:
    return float(np.sqrt(np.mean((first - second) ** 2))) if len(first) else math.nan
