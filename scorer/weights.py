"""Derive token weights from raw scores, in pure numpy: the list of methods, and a method with its parameters.

Raw scores are stored and weights can be derived from them at any time, so one scoring run serves every method here. A
weight that depends on a NaN score is NaN, never a plausible number.

A text-only row (no image) trains as if it had no weights: each of its weights is 1, whatever the method, when a run
stores them and when a reader derives them. :func:`weights_of` is where that is decided.

A stop token is a token like any other: it is its last word's neighbour in a window, and counts in a row's mean. The
exceptions are the selections :mod:`scorer.weighting.vig_row` and :mod:`scorer.weighting.top_tokens`, which always keep
it.

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
from scorer.weighting.dataset_gaps import DatasetGaps
from scorer.weighting.grounded import GROUNDED, grounded
from scorer.weighting.pgpo import PGPO, pgpo
from scorer.weighting.prior import PRIOR, prior
from scorer.weighting.record import RawScores, WeightingMethod
from scorer.weighting.top_tokens import TOP_TOKENS, top_tokens
from scorer.weighting.tpo import TPO, tpo
from scorer.weighting.vig import VIG, vig
from scorer.weighting.vig_row import VIG_ROW, vig_row
from scorer.weighting.vppo import VPPO, vppo

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
    "pgpo",
    "prior",
    "top_tokens",
    "tpo",
    "vig",
    "vig_row",
    "vppo",
    "weights_of",
]


def weights_of(function: Callable[[RawScores], Float32Array], scores: RawScores) -> Float32Array:
    """Return the weights of one sample, float32 [N]: those of ``function``, or 1 for each token of a text-only one."""
    if getattr(scores, "text_only", False):
        return np.ones(len(scores.token_turns), dtype=np.float32)
    return np.asarray(function(scores), dtype=np.float32)


METHODS: Final[Mapping[str, WeightingMethod]] = {
    method.name: method for method in (CAL, CAL_LOGPROB, PRIOR, VIG, VIG_ROW, TOP_TOKENS, VPPO, PGPO, TPO, GROUNDED)
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
        """Return the weights of one sample, float32 [N].

        Raises:
            TableError: the method reads a missing column.
            ConfigError: the method needs the dataset's gaps (:attr:`needs_gaps`).
        """
        if self.needs_gaps:
            raise ConfigError(
                f"{self.missing_gaps}, which one sample does not tell: read a finished output, which has them, or set "
                f"{self.record.of_dataset[0]}"
            )
        optional = getattr(scores, "optional", {})
        self.check_columns([name for name in self.record.columns if name in optional or hasattr(scores, name)])
        return weights_of(partial(self.record.function, **self.params), scores)

    @property
    def needs_gaps(self) -> bool:
        """Whether a parameter is left to the gaps of the whole dataset, and :meth:`with_gaps` is yet to give it."""
        return any(self.params[name] is None for name in self.record.of_dataset)

    @property
    def missing_gaps(self) -> str:
        """The beginning of a message: which parameter is left to the dataset."""
        return f"the method {self.name!r} takes its {self.record.of_dataset[0]} from the gaps of the whole dataset"

    def with_gaps(self, gaps: DatasetGaps) -> Method:
        """Return the method with the parameters that the dataset's gaps give; itself if it needs none.

        Raises:
            ValueError: the dataset has no scored row.
        """
        if not self.needs_gaps or self.record.from_gaps is None:
            return self
        given = self.record.from_gaps(gaps, self.params)
        return Method(self.name, {**given, **{name: v for name, v in self.params.items() if v is not None}})

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
