"""Run the reference model: on the plain path, and on the cheaper fast path that is tested against it."""

from scorer.forward.fast import FastPath
from scorer.forward.labels import LabelScores
from scorer.forward.model import ReferenceModel
from scorer.forward.plain import score_two_forwards

__all__ = ["FastPath", "LabelScores", "ReferenceModel", "score_two_forwards"]
