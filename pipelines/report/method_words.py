"""Describe the weighting method of a run: parameters as recorded by the run, meaning from the method's record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scorer.weighting.dataset_gaps import DatasetGaps
from scorer.weights import METHODS, Method


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


def thresholds(summary: Mapping[str, Any]) -> list[str]:
    """Return what the dataset's gaps give each method that takes a parameter from them: ``vig (threshold 0.344, …)``.

    Gaps are those with the run's first contrast; without a recorded one, nothing is returned.
    """
    recorded = summary.get("gaps", {}).get(summary.get("contrast"))
    if recorded is None or not (gaps := DatasetGaps.from_dict(recorded)).rows.total:
        return []
    of_dataset = [Method(method.name).with_gaps(gaps) for method in METHODS.values() if method.of_dataset]
    return [
        f"{method.name} ({', '.join(f'{name} {value:.4g}' for name, value in method.params.items())})"
        for method in of_dataset
    ]


def mean_weight(summary: Mapping[str, Any]) -> float | None:
    """Return the mean of the weights that the run stored; None without scored rows, or from an earlier release."""
    recorded = summary.get("weights")
    if recorded is None or not recorded["tokens"]:
        return None
    return float(recorded["sum"]) / int(recorded["tokens"])
