"""Run the reference model on the plain path, or on the cheaper fast path that is tested against it."""

from scorer.forward.fast import FastPath, FastPathDiffersError
from scorer.forward.labels import LabelScores, Quantities, undefined_scores
from scorer.forward.memory import is_out_of_memory
from scorer.forward.model import ReferenceModel
from scorer.forward.packed import bucket_for
from scorer.forward.pairs import CONTRAST, Item
from scorer.forward.plain import score_full_forwards, score_text

__all__ = [
    "CONTRAST",
    "FastPath",
    "FastPathDiffersError",
    "Item",
    "LabelScores",
    "Quantities",
    "ReferenceModel",
    "bucket_for",
    "is_out_of_memory",
    "score_full_forwards",
    "score_text",
    "undefined_scores",
]
