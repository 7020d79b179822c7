"""What a trainer needs: published weights as numpy arrays, and a loss that takes them.

Importing this package loads neither torch nor pyarrow; the loss loads torch when it is first touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scorer.training.loss import weighted_cross_entropy
    from scorer.training.reader import PublishedWeights, WeightRow, read_weights

__all__ = ["PublishedWeights", "WeightRow", "read_weights", "weighted_cross_entropy"]


def __getattr__(name: str) -> Any:
    if name == "weighted_cross_entropy":
        from scorer.training.loss import weighted_cross_entropy

        return weighted_cross_entropy
    if name in __all__:
        from scorer.training import reader

        return getattr(reader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
