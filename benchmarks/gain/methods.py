"""List the methods that `training_gain` compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from scorer.training.rows import Derive
from scorer.types import Float32Array
from scorer.weights import Method, RawScores

UNIFORM, ORACLE, IN_STEP, GROUNDED = "uniform", "oracle", "CAL, in the step", "grounded"


@dataclass(frozen=True, slots=True)
class Compared:
    """A method in tables and plots.

    Attributes:
        colour: of its line in plots.
        name: of the product's method that derives its weights; None if it needs no scores.
        params: that method's parameters where they are not its defaults.
        of_text: whether it reads a text reference, and of the reference model only which tokens there are.
    """

    colour: str
    name: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    of_text: bool = False

    @property
    def of_reference(self) -> bool:
        """Whether another reference model would give other weights."""
        return self.name is not None and not self.of_text


METHODS: Final[Mapping[str, Compared]] = {
    UNIFORM: Compared("#6b7280"),
    "CAL": Compared("#c2410c", "cal", {"edges": "paper"}),
    "CAL, window 1": Compared("#f59e0b", "cal", {"window": 1}),
    "CAL, log-probability": Compared("#a16207", "cal-logprob"),
    "PRIOR": Compared("#2563eb", "prior", of_text=True),
    "VIG": Compared("#059669", "vig"),
    GROUNDED: Compared("#7c3aed", "grounded"),
    ORACLE: Compared("#a8a29e"),
    IN_STEP: Compared("#e11d48"),
}
"""The methods, as published where they are: CAL's window reaches beyond the caption, VIG has one threshold for the
dataset, PRIOR reads a language model that was trained on the captions. The oracle knows which words were spoilt and
gives them no weight: the most weights can do. CAL in the step contrasts the student itself, as its authors do, by a
second forward pass on a grey image; the others read what a frozen reference model has scored."""

USUAL: Final = tuple(name for name in METHODS if name != IN_STEP)
"""The methods that are compared unless others are named."""


@dataclass(frozen=True, slots=True)
class Weighting:
    """A method with what is chosen about it.

    Attributes:
        method: a name in `METHODS`.
        k: the parameter of `grounded`; None for the others.
        floor: the smallest weight of `grounded`, which a word that the image contradicts has then; None for the others.
    """

    method: str
    k: float | None = None
    floor: float | None = None

    def derive(self) -> Derive:
        """Return what derives the weights from raw scores, for a reader of published outputs."""
        compared = METHODS[self.method]
        assert compared.name is not None, f"{self.method} needs no scores"
        if self.k is None:
            return Method(compared.name, compared.params)
        method = Method(compared.name, {**compared.params, "k": self.k})
        return Raised(method, self.floor) if self.floor else method


@dataclass(frozen=True, slots=True)
class Raised:
    """A method whose weights are at least `floor`; a function of raw scores like the method itself."""

    method: Method
    floor: float

    def __call__(self, scores: RawScores) -> Float32Array:
        return np.maximum(self.method(scores), np.float32(self.floor))
