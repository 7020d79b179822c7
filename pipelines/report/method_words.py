"""How a run's recorded method is told: its parameters as they were, its meaning from the method's record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scorer.weights import METHODS


def name(method: Any) -> str:
    """The method's name, with its parameters where they are recorded: ``prior (alpha 1.0)``."""
    return f"{method['name']}{parameters(method)}" if isinstance(method, Mapping) else str(method)


def parameters(method: Mapping[str, Any]) -> str:
    """The recorded parameters in brackets, after a space; empty where there are none."""
    told = ", ".join(f"{name} {value}" for name, value in method.get("params", {}).items())
    return f" ({told})" if told else ""


def meaning(method: Any) -> str:
    """Formula and source; empty for a method that this release does not know."""
    known = METHODS.get(method["name"]) if isinstance(method, Mapping) else METHODS.get(str(method))
    return "" if known is None else f"{known.formula} ({known.source})"
