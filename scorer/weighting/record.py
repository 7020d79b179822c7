"""A weighting method as one record: its formula, and everything that a reader has to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy.typing as npt

from scorer.errors import ConfigError
from scorer.types import Float32Array, Int16Array
from scorer.weighting.parameters import Parameter, Value


class RawScores(Protocol):
    """What a method may read of one sample: arrays of length N. ``TokenScores`` and table rows both fit."""

    @property
    def token_turns(self) -> Int16Array: ...
    @property
    def logit_gap(self) -> Float32Array: ...
    @property
    def logprob_clean(self) -> Float32Array: ...
    @property
    def logprob_contrast(self) -> Float32Array: ...
    @property
    def optional(self) -> Mapping[str, npt.NDArray[Any]]: ...


@dataclass(frozen=True, kw_only=True)
class WeightingMethod:
    """A way to derive weights from raw scores.

    Attributes:
        name: what it is called in options, requests and outputs.
        label: its name in a user interface, short.
        words: one sentence for people.
        formula: the weight of a token, over columns and parameters by their names.
        paper: where it is published, or what it comes after; ``arxiv`` is the paper's id there.
        function: raw scores and every parameter by its name → float32 [N].
        columns: the columns that ``function`` reads; those that not every output has it finds in ``optional``.
        parameters: in the order in which they are shown.
        ordered: pairs of parameters of which the first must not exceed the second.
        bounds: the two parameters that every weight lies between.
        binary: every weight is 0 or 1.
        whole_row: a weight depends on all tokens of its row, by a mean or a rank over them.
    """

    name: str
    label: str
    words: str
    formula: str
    paper: str
    arxiv: str | None
    function: Callable[..., Float32Array]
    columns: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    ordered: tuple[tuple[str, str], ...] = ()
    bounds: tuple[str, str] | None = None
    binary: bool = False
    whole_row: bool = False

    @property
    def source(self) -> str:
        """The paper and its arXiv id."""
        return self.paper if self.arxiv is None else f"{self.paper}, arXiv {self.arxiv}"

    def check(self, params: Any) -> dict[str, Value]:
        """All parameters: those given, in canonical types, and the defaults of the others.

        Raises:
            ConfigError: ``params`` is no mapping, has an unknown name, or a value of the wrong type or out of range.
        """
        if not isinstance(params, Mapping):
            raise ConfigError(f"method {self.name!r}: parameters are {params!r}; give a mapping of name to value")
        own = [parameter.name for parameter in self.parameters]
        unknown = sorted(str(name) for name in set(params) - set(own))
        if unknown:
            has = ", ".join(own) or "none"
            raise ConfigError(f"method {self.name!r} has no parameter {', '.join(unknown)}; it has {has}")
        found = {p.name: p.check(params.get(p.name, p.default), self.name) for p in self.parameters}
        for low, high in self.ordered:
            a, b = found[low], found[high]
            if a is not None and b is not None and a > b:
                raise ConfigError(
                    f"method {self.name!r}: {low} is {a!r} and {high} is {b!r}; {low} ≤ {high} must hold: "
                    f"lower {low} or raise {high}"
                )
        return found

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data, without its function; parameters by name."""
        document = {name: value for name, value in vars(self).items() if name not in ("function", "parameters")}
        return {**document, "params": {p.name: asdict(p) for p in self.parameters}}
