"""Define the record of a weighting method: its formula, and everything else that a reader needs to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy.typing as npt

from scorer.errors import ConfigError
from scorer.types import Float32Array, Int16Array
from scorer.weighting.dataset_gaps import DatasetGaps
from scorer.weighting.parameters import Parameter, Value


class RawScores(Protocol):
    """The arrays, of length N, that a method may read of one sample; ``TokenScores`` and table rows both qualify."""

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
        name: its name in options, requests and outputs.
        label: a short name for user interfaces.
        words: a one-sentence description.
        formula: the weight of a token, in terms of columns and parameters.
        paper: where the method is published, or the paper that it follows.
        arxiv: the paper's arXiv id; None if it has none.
        function: (raw scores, every parameter by name) → float32 [N].
        columns: the columns that ``function`` reads; optional ones are in ``scores.optional``.
        if_given: the optional columns that it reads where the run has them, and does without elsewhere.
        text_reference: whether it reads :data:`scorer.columns.LOGPROB_TEXT` where a reader has joined it.
        parameters: the parameters, in display order.
        of_dataset: the nullable parameters that ``from_gaps`` gives a value where they are null; without a value, the
            method derives no weights.
        from_gaps: (a dataset's gaps, every parameter by name) → values of ``of_dataset``; raises ValueError if the
            dataset has no scored row.
        ordered: pairs of parameters whose first must not exceed the second.
        bounds: the two parameters that every weight lies between.
        binary: whether every weight is 0 or 1.
        whole_row: whether a weight depends on all tokens of its row, through a mean or a rank.
        alone: whether a weight depends on its own token alone, whatever the parameters.
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
    if_given: tuple[str, ...] = ()
    text_reference: bool = False
    of_dataset: tuple[str, ...] = ()
    from_gaps: Callable[[DatasetGaps, Mapping[str, Value]], Mapping[str, Value]] | None = None
    ordered: tuple[tuple[str, str], ...] = ()
    bounds: tuple[str, str] | None = None
    binary: bool = False
    whole_row: bool = False
    alone: bool = False

    @property
    def source(self) -> str:
        """The paper, with its arXiv id if it has one."""
        return self.paper if self.arxiv is None else f"{self.paper}, arXiv {self.arxiv}"

    def check(self, params: Any) -> dict[str, Value]:
        """Check the given parameters and return all of them, in canonical types, with defaults for the others.

        Raises:
            ConfigError: ``params`` is not a mapping, a name is unknown, or a value has the wrong type or is out of
                range.
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
            if isinstance(a, (int, float)) and isinstance(b, (int, float)) and a > b:  # not null
                raise ConfigError(
                    f"method {self.name!r}: {low} is {a!r} and {high} is {b!r}; {low} ≤ {high} must hold: "
                    f"lower {low} or raise {high}"
                )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain data for what reads one output: without its function, with parameters by name."""
        left_out = ("function", "parameters", "text_reference", "from_gaps", "alone")
        document = {name: value for name, value in vars(self).items() if name not in left_out}
        return {**document, "params": {p.name: asdict(p) for p in self.parameters}}
