"""Attend within a packed batch: who sees whom (:mod:`plan`), computed by segments or by FlexAttention."""

from scorer.forward.attention.flex import FlexAttention, runs_on
from scorer.forward.attention.interface import (
    Attention,
    Backend,
    BatchAttention,
    Keys,
    packed_attention,
    tower_attention,
)
from scorer.forward.attention.plan import AttentionPlan, Span
from scorer.forward.attention.segmented import SegmentedAttention

__all__ = [
    "Attention",
    "AttentionPlan",
    "Backend",
    "BatchAttention",
    "FlexAttention",
    "Keys",
    "SegmentedAttention",
    "Span",
    "packed_attention",
    "runs_on",
    "tower_attention",
]
