"""Run the reference model: on the plain path, and on the cheaper fast path that is tested against it."""

from scorer.forward.fast import FastPath, FastPathDiffersError, Item
from scorer.forward.labels import LabelScores, undefined_scores
from scorer.forward.memory import is_out_of_memory
from scorer.forward.model import ReferenceModel
from scorer.forward.packed import bucket_for
from scorer.forward.plain import score_text, score_two_forwards

__all__ = [
    "FastPath",
    "FastPathDiffersError",
    "Item",
    "LabelScores",
    "ReferenceModel",
    "bucket_for",
    "is_out_of_memory",
    "score_text",
    "score_two_forwards",
    "undefined_scores",
]
