"""Name the ways to scale weights to a mean of 1.

Methods give weights of different means (CAL's are at least 1, VIG's at most). Scaled, they leave the learning rate that
was found without weights as good as it was, wherever a loss divides by the number of tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Literal

from scorer.errors import ConfigError

Mean = Literal["none", "sequence", "dataset"]
"""One of :data:`MEANS`."""

MEANS: Final[Mapping[str, str]] = {
    "none": "weights are as the method gives them",
    "sequence": "the weights of each sequence's trained tokens have a mean of 1, as in PRIOR (k·w / Σw)",
    "dataset": "the weights of all tokens of the rows with an image have a mean of 1, and so those that weigh more in "
    "the dataset keep doing so",
}
"""Name → what it does. A reader of weights knows no sequences, and what sees one sequence knows no dataset; so each
takes its own of the two."""


def check_mean(value: Any, known: Collection[str], what: str = "mean") -> None:
    """Raise ConfigError if ``value`` is none of ``known``, names in :data:`MEANS`; ``what`` is its name."""
    if value not in known:
        elsewhere = {
            "sequence": "; give it to the WeightAligner, which sees the trainer's sequences",
            "dataset": "; give it to read_weights or WeightTable.open, which read the dataset",
        }
        hint = elsewhere.get(value, "") if isinstance(value, str) else ""
        raise ConfigError(f"{what} is {value!r}; it must be {' or '.join(map(repr, known))}{hint}")
