"""Compute attention in training by segments: a branch attends to its row's opening and to itself, and to nothing else.

Over a row as a whole, most pairs of tokens would be masked, and on a CPU softmax, masks and conversions take longer
than all matrix products. So each segment is computed by itself, in the precision of its inputs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from scorer.mini.batches import Segment

NAME: Final = "tokensight_mini_segments"


def attend_by_segments(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Sequence[Segment],
    scaling: float,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Return what each token reads, [B, T, heads, head size]; an attention function of transformers.

    `query`, `key`, `value`: [B, heads, T, head size]. `attention_mask`: the batch's segments, openings first.
    """
    lengths = [segment.end - segment.start for segment in attention_mask]
    queries, keys, values = (torch.split(each, lengths, 2) for each in (query * scaling, key, value))
    read = []
    for k, segment in enumerate(attention_mask):
        seen = [0, k] if k else [0]
        known = torch.cat([keys[n] for n in seen], 2)
        scores = queries[k] @ known.transpose(2, 3)  # [B, heads, own, keys]
        scores = scores.masked_fill(~segment.visible[:, None], torch.finfo(scores.dtype).min)
        read.append(scores.softmax(-1).to(value.dtype) @ torch.cat([values[n] for n in seen], 2))
    return torch.cat(read, 2).transpose(1, 2), None


AttentionInterface.register(NAME, attend_by_segments)


@contextmanager
def attending_by_segments(model: PreTrainedModel) -> Iterator[None]:
    """Let a decoder attend by segments meanwhile."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
