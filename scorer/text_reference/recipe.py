"""Hold every option of training a text reference in one frozen record that is validated once."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

from scorer.errors import ConfigError

HEAD_SIZE: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a text reference is trained.

    Attributes:
        base: folder or hub id of a causal language model to train further; None trains one from scratch.
        tokenizer: folder or hub id of the tokenizer of a model from scratch; None trains a byte-level BPE on the texts.
        vocab_size: maximum number of tokens of that BPE; it may have fewer, as pairs that occur once are not merged.
        hidden: width of a model from scratch, a multiple of 64.
        layers: its decoder layers.
        context: its positions. Texts beyond them, or beyond the base's, are cut.
        epochs: maximum passes over the texts; training stops if the held-out loss has not fallen three times in a row.
        batch_size: rows per step.
        learning_rate: its peak; it rises over a tenth of the steps and falls along a cosine. None takes 1e-3 from
            scratch and 5e-5 for a base.
        held_out: share of the distinct texts to hold out, in (0, 1); at least one text is.
        seed: of the split, the initial weights and the order of rows.

    Raises:
        ConfigError: an option has the wrong type or is out of range.
    """

    base: str | None = None
    tokenizer: str | None = None
    vocab_size: int = 8192
    hidden: int = 256
    layers: int = 4
    context: int = 1024
    epochs: int = 10
    batch_size: int = 16
    learning_rate: float | None = None
    held_out: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (
            ("vocab_size", 300),
            ("hidden", HEAD_SIZE),
            ("layers", 1),
            ("context", 8),
            ("epochs", 1),
            ("batch_size", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ConfigError(f"{_option(name)} is {value!r}; it must be a whole number of at least {low}")
        if self.hidden % HEAD_SIZE:
            raise ConfigError(f"--hidden is {self.hidden}; it must be a multiple of {HEAD_SIZE}")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"--held-out is {self.held_out!r}; it must be a share between 0 and 1")
        rate = self.learning_rate
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise ConfigError(f"--learning-rate is {rate!r}; it must be a positive number")
        if self.base is not None and self.tokenizer is not None:
            raise ConfigError(
                f"--tokenizer {self.tokenizer!r} is given with --base {self.base!r}, which has one of its own; leave "
                "one out"
            )

    @property
    def peak_rate(self) -> float:
        """The highest learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 1e-3 if self.base is None else 5e-5

    def to_dict(self) -> dict[str, Any]:
        """Return all options as plain data."""
        return asdict(self)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
