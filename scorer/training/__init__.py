"""Read published weights as numpy arrays, align them with a trainer's tokens, and compute a weighted loss.

Importing this package loads neither torch nor pyarrow. Reading and aligning need only numpy and pyarrow; the loss and
the collator load torch on first use. There is one module per trainer (``huggingface``, ``trl``, ``llava``,
``llama_factory``); ``export`` writes files for trainers that read their own format.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scorer.training.alignment import WeightAligner
    from scorer.training.collator import WeightedCollator
    from scorer.training.loss import weighted_cross_entropy
    from scorer.training.reader import PublishedWeights, read_weights
    from scorer.training.row_selection import RowSelection
    from scorer.training.rows import WeightRow
    from scorer.training.weight_table import WeightTable
    from scorer.training.weighted_text import WeightedText

_MODULES = {
    "PublishedWeights": "reader",
    "RowSelection": "row_selection",
    "WeightedText": "weighted_text",
    "WeightAligner": "alignment",
    "WeightRow": "rows",
    "WeightTable": "weight_table",
    "WeightedCollator": "collator",
    "read_weights": "reader",
    "weighted_cross_entropy": "loss",
}
__all__ = [
    "PublishedWeights",
    "RowSelection",
    "WeightAligner",
    "WeightRow",
    "WeightTable",
    "WeightedCollator",
    "WeightedText",
    "read_weights",
    "weighted_cross_entropy",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"scorer.training.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
