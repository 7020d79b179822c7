"""Add ``--method`` and ``--method-param`` to every command line that derives weights, from the methods' records."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterator

from scorer.weighting.parameters import Parameter, Value
from scorer.weighting.record import WeightingMethod
from scorer.weights import METHODS


def add_method_options(to: argparse._ActionsContainer, purpose: str, default: str | None = None) -> None:
    """Add ``--method``, with ``purpose`` as its help, and ``--method-param``, collected as a list of (name, value)."""
    to.add_argument("--method", choices=tuple(METHODS), default=default, help=purpose)
    to.add_argument(
        "--method-param",
        action="append",
        type=method_param,
        default=[],
        metavar="NAME=VALUE",
        help=f"a parameter of the method; may be repeated ({_defaults()})",
    )


def method_param(text: str) -> tuple[str, Value]:
    """Parse ``NAME=VALUE``: a number, ``null``, or a word that some parameter takes; the method checks the name.

    Raises:
        ArgumentTypeError: the text is anything else.
    """
    name, _, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, such as window=1")
    if value.lower() == "null":
        return name, None
    for number in (int, float):
        try:
            return name, number(value)
        except ValueError:
            continue
    words = [word for method in METHODS.values() for parameter in method.parameters for word in parameter.choices]
    if value in words:
        return name, value
    listed = ", ".join(dict.fromkeys(words))
    raise argparse.ArgumentTypeError(
        f"{text!r}: the value {value!r} is neither a number nor null, nor a word that a parameter takes ({listed})"
    )


def describe_methods(width: int | None = None) -> str:
    """Return a help section that lists every method with its description, formula, source and parameters.

    Args:
        width: columns; by default the terminal's, but at most 112.
    """
    width = width or min(112, shutil.get_terminal_size().columns - 2)
    return "\n".join(line for method in METHODS.values() for line in _described(method, width))


def _described(method: WeightingMethod, width: int) -> Iterator[str]:
    def wrapped(text: str) -> Iterator[str]:
        yield from textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="    ")

    yield f"  {method.name}"
    yield from wrapped(method.words)
    yield from wrapped(f"{method.formula} ({method.source})")
    for parameter in method.parameters:
        yield from wrapped(f"{parameter}  {parameter.meaning}{_limit(parameter)}")
        for word, meaning in parameter.choices.items():
            yield from wrapped(f"  {word}: {meaning}")


def _limit(parameter: Parameter) -> str:
    return f" ({parameter.limit})" if parameter.limit else ""


def _defaults() -> str:
    """Return ``cal: low=1, high=5; …``, grouping methods with equal parameters; % is doubled for argparse."""
    by_parameters: dict[str, list[str]] = {}
    for method in METHODS.values():
        by_parameters.setdefault(", ".join(map(str, method.parameters)), []).append(method.name)
    lines = [f"{', '.join(names)}: {parameters}" for parameters, names in by_parameters.items() if parameters]
    return "; ".join(lines).replace("%", "%%")
