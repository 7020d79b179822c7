"""Describe the weighting method of a run: parameters as recorded by the run, meaning from the method's record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scorer.weights import METHODS


def name(method: Any) -> str:
    """Return the name of a method with any recorded parameters: ``prior (alpha 1.0)``."""
    return f"{method['name']}{parameters(method)}" if isinstance(method, Mapping) else str(method)


def parameters(method: Mapping[str, Any]) -> str:
    """Return the recorded parameters in parentheses, after a space, or an empty string."""
    listed = ", ".join(f"{name} {value}" for name, value in method.get("params", {}).items())
    return f" ({listed})" if listed else ""


def meaning(method: Any) -> str:
    """Return formula and source, or an empty string for a method unknown to this release."""
    known = METHODS.get(method["name"]) if isinstance(method, Mapping) else METHODS.get(str(method))
    return "" if known is None else f"{known.formula} ({known.source})"
