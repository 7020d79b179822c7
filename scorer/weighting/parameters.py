"""Describe one parameter of a weighting method: its type, its range and its help text."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from scorer.errors import ConfigError

Value = float | int | str | None


@dataclass(frozen=True, slots=True)
class Slider:
    """The part of a parameter's range that a user interface offers.

    Attributes:
        minimum, maximum, step: in the parameter's unit; the default is one of the steps.
        start: for a nullable parameter, the value when it is first set.
    """

    minimum: float
    maximum: float
    step: float
    start: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A number, or a word out of a few, that a method takes.

    Attributes:
        label: a short name for user interfaces.
        meaning: one line of help text.
        type: ``float`` or ``int``; or ``choice``, a word out of ``choices``.
        slider: the range that a user interface offers; None for a choice.
        choices: of a choice, each word and what it means, in one line.
        unit: ``tokens``, ``nats``, ``logits``, ``share`` (0 to 1), or empty.
        minimum, maximum: the range, including these values; None if it is open-ended.
        exclusive_minimum, exclusive_maximum: the range, excluding these values.
        odd: whether only odd integers are allowed.
        nullable: whether None is allowed; it leaves the parameter without effect.
        overrides: the parameter that has no effect while this one is set.
    """

    name: str
    label: str
    meaning: str
    type: Literal["float", "int", "choice"]
    default: Value
    slider: Slider | None = None
    choices: Mapping[str, str] = field(default_factory=dict, hash=False)
    unit: str = ""
    minimum: float | None = None
    exclusive_minimum: float | None = None
    maximum: float | None = None
    exclusive_maximum: float | None = None
    odd: bool = False
    nullable: bool = False
    overrides: str | None = None

    def check(self, value: Any, method: str) -> Value:
        """Check a value and return it in its canonical type, so that 1 and 1.0 have the same fingerprint.

        Args:
            value: the value to check.
            method: the method's name, for the message.

        Raises:
            ConfigError: the value is not a finite number, or is out of range; or it is none of the choices.
        """
        if value is None and self.nullable:
            return None
        if self.type == "choice":
            if not isinstance(value, str) or value not in self.choices:
                shown = "null" if value is None else f"{value!r:.80}"
                raise ConfigError(f"method {method!r}: {self.name} is {shown}; it must be {self.limit}")
            return value
        number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not number or not abs(value) <= sys.float_info.max:  # math.isfinite raises on an integer beyond it
            shown = "null" if value is None else repr(value)
            null = ", or null for none" if self.nullable else ""
            raise ConfigError(f"method {method!r}: {self.name} is {shown}; it must be a finite number{null}")
        found = int(value) if self.type == "int" and int(value) == value else float(value)
        if not self._allows(found):
            raise ConfigError(f"method {method!r}: {self.name} is {found!r}; it must {self._requirement}")
        return found

    def __str__(self) -> str:
        """Return the name and default in the form that ``--method-param`` takes: ``window=3``."""
        default = self.default
        return f"{self.name}={'null' if default is None else default if isinstance(default, str) else f'{default:g}'}"

    def _allows(self, value: float | int) -> bool:
        return (
            (self.type == "float" or isinstance(value, int))
            and (not self.odd or value % 2 == 1)
            and (self.minimum is None or value >= self.minimum)
            and (self.exclusive_minimum is None or value > self.exclusive_minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.exclusive_maximum is None or value < self.exclusive_maximum)
        )

    @property
    def limit(self) -> str:
        """The allowed values in words: ``odd, 1 or more``, ``in (0, 1]``, ``turn or paper``; empty for any number."""
        if self.type == "choice":
            return " or ".join(self.choices)
        return ", ".join(filter(None, ("odd" if self.odd else "", self._range)))

    @property
    def _range(self) -> str:
        left, right = self.exclusive_minimum is not None, self.exclusive_maximum is not None
        low = self.exclusive_minimum if left else self.minimum
        high = self.exclusive_maximum if right else self.maximum
        if low is not None and high is not None:
            return f"in {'(' if left else '['}{low:g}, {high:g}{')' if right else ']'}"
        if low is not None:
            return f"above {low:g}" if left else f"{low:g} or more"
        if high is not None:
            return f"below {high:g}" if right else f"{high:g} or less"
        return ""

    @property
    def _requirement(self) -> str:
        if self.type == "int":
            unit = f" of {self.unit}" if self.unit else ""
            limit = f", {self._range}" if self._range else ""
            return f"be {'an odd' if self.odd else 'a whole'} number{unit}{limit}"
        return f"lie {self._range}" if self._range.startswith("in ") else f"be {self._range}"
