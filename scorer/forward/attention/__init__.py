"""Attend within a packed batch: who sees whom (:mod:`plan`), and three ways to compute it."""

from scorer.forward.attention.flex import FlexAttention, runs_on
from scorer.forward.attention.interface import (
    Attention,
    Backend,
    BatchAttention,
    Keys,
    TextAttention,
    packed_attention,
    tower_attention,
)
from scorer.forward.attention.plan import AttentionPlan, Span
from scorer.forward.attention.segmented import SegmentedAttention
from scorer.forward.attention.varlen import VarlenAttention, agrees_on

__all__ = [
    "Attention",
    "AttentionPlan",
    "Backend",
    "BatchAttention",
    "FlexAttention",
    "Keys",
    "SegmentedAttention",
    "Span",
    "TextAttention",
    "VarlenAttention",
    "agrees_on",
    "packed_attention",
    "runs_on",
    "tower_attention",
]
