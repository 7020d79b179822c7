"""Every method by its name, ready to derive weights of one sample."""

from __future__ import annotations

from typing import Any

from scorer.weighting.record import WeightingMethod
from scorer.weights import METHODS, Method


def set_by_hand(record: WeightingMethod) -> dict[str, Any]:
    """The parameters that only a dataset's gaps give, each at the start of its slider."""
    found = {}
    for parameter in record.parameters:
        if parameter.name in record.of_dataset:
            assert parameter.slider is not None
            found[parameter.name] = parameter.slider.start
    return found


def ready(name: str) -> Method:
    return Method(name, set_by_hand(METHODS[name]))
