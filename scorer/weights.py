"""Derive token weights from raw scores, in pure numpy: the list of methods, and a method with its parameters.

Raw scores are stored and weights can be derived from them at any time, so one scoring run serves every method here. A
weight that depends on a NaN score is NaN, never a plausible number.

A text-only row (no image) trains as if it had no weights: each of its weights is 1, whatever the method, when a run
stores them and when a reader derives them. :func:`weights_of` is where that is decided.

A stop token is a token like any other: it is its last word's neighbour in a window, and counts in a row's mean. The one
exception is a selection (:func:`scorer.weighting.vig.vig`), which always keeps it.

Each method's formula, with its source, and its record are in a module of :mod:`scorer.weighting`. To add one, write
both there, list the record in :data:`METHODS`, and port the function to the page's ``weights.js``. :class:`Method`
checks the ranges of parameters once; the functions do not check them again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np

from scorer.errors import ConfigError, TableError
from scorer.types import Float32Array
from scorer.weighting.cal import CAL, CAL_LOGPROB, cal, cal_logprob, clamp_and_pool
from scorer.weighting.grounded import GROUNDED, grounded
from scorer.weighting.prior import PRIOR, prior
from scorer.weighting.record import RawScores, WeightingMethod
from scorer.weighting.vig import VIG, vig

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "Method",
    "RawScores",
    "WeightingMethod",
    "cal",
    "cal_logprob",
    "clamp_and_pool",
    "grounded",
    "prior",
    "vig",
    "weights_of",
]


def weights_of(function: Callable[[RawScores], Float32Array], scores: RawScores) -> Float32Array:
    """Return the weights of one sample, float32 [N]: those of ``function``, or 1 for each token of a text-only one."""
    if getattr(scores, "text_only", False):
        return np.ones(len(scores.token_turns), dtype=np.float32)
    return np.asarray(function(scores), dtype=np.float32)


METHODS: Final[Mapping[str, WeightingMethod]] = {
    method.name: method for method in (CAL, CAL_LOGPROB, PRIOR, VIG, GROUNDED)
}
DEFAULT_METHOD: Final = CAL.name


@dataclass(frozen=True)
class Method:
    """A named method with all its parameters, checked on construction. Call it on raw scores.

    Two methods are equal if they compute the same weights: parameters that are not given take their defaults.

    Raises:
        ConfigError: the name or a parameter is unknown, or a value has the wrong type or is out of range.
    """

    name: str = DEFAULT_METHOD
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name not in METHODS:
            raise ConfigError(f"unknown weighting method {self.name!r}; known methods: {', '.join(METHODS)}")
        object.__setattr__(self, "params", self.record.check(self.params))

    @property
    def record(self) -> WeightingMethod:
        """The method's record."""
        return METHODS[self.name]

    def __call__(self, scores: RawScores) -> Float32Array:
        """Return the weights of one sample, float32 [N]. Raises TableError if the method reads a missing column."""
        optional = getattr(scores, "optional", {})
        self.check_columns([name for name in self.record.columns if name in optional or hasattr(scores, name)])
        return weights_of(partial(self.record.function, **self.params), scores)

    def check_columns(self, columns: Collection[str], where: str = "the output") -> None:
        """Check that every column that the method reads is present.

        Args:
            columns: names of the columns that are present.
            where: what is being checked, for the message.

        Raises:
            TableError: a column is missing; the message names all that are.
        """
        absent = [name for name in self.record.columns if name not in columns]
        if absent:
            raise TableError(
                f"{where} has no {', '.join(absent)}, which the method {self.name!r} reads; score the dataset again "
                "so that it has them, or choose another method"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the name and all parameters as plain data, as recorded with the weights."""
        return {"name": self.name, "params": dict(self.params)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Method:
        """Build the method from :meth:`to_dict`'s output. Raises ConfigError, as the constructor does."""
        return cls(document.get("name", ""), document.get("params", {}))
