"""A weighting method that the project does not have: what every reader makes of its record alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import pytest

from scorer.types import Float32Array
from scorer.weighting.parameters import Parameter, Slider
from scorer.weighting.record import RawScores, WeightingMethod
from scorer.weights import METHODS


def _toy(scores: RawScores, *, power: float = 2.0, cap: float | None = None) -> Float32Array:
    weights = np.minimum(np.exp(scores.logprob_clean.astype(np.float64)) * power, np.inf if cap is None else cap)
    return np.asarray(weights, dtype=np.float32)


TOY: Final = WeightingMethod(
    name="toy",
    label="Toy <b>of</b> tests",
    words="Weighs what the model expects.",
    formula="power · exp(logprob_clean), at most cap",
    paper="A toy of the tests, 1999",
    arxiv="9901.00001",
    function=_toy,
    columns=("logprob_clean",),
    parameters=(
        Parameter(
            name="power",
            label="times",
            meaning="what the probability is multiplied by",
            type="float",
            default=2.0,
            exclusive_minimum=0,
            exclusive_maximum=8,
            slider=Slider(0.25, 4, 0.25),
        ),
        Parameter(
            name="cap",
            label="at most",
            meaning="the greatest weight; null: none",
            type="float",
            default=None,
            minimum=0,
            nullable=True,
            slider=Slider(0, 4, 0.5, start=1),
        ),
    ),
    alone=True,
)


READS_OPTIONAL: Final = replace(
    TOY,
    formula="power · toy, whatever cap",
    function=lambda scores, *, power=2.0, cap=None: np.asarray(power * scores.optional["toy"], np.float32),
    columns=("toy",),
)
"""The same name over the column of :mod:`tests.toy_columns`."""


def plant(monkeypatch: pytest.MonkeyPatch, method: WeightingMethod = TOY) -> None:
    """Add the method's record, and nothing else."""
    monkeypatch.setitem(METHODS, method.name, method)  # type: ignore[arg-type]  # a dict below its Mapping
