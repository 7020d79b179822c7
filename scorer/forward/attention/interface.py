"""Run a transformers model with the attention of a packed batch, through transformers' own interfaces.

transformers asks a mask function for each kind of layer and passes what it returns to the attention function. Ours
returns the batch's attention with that kind's window. A vision tower that cuts its patches into windows asks for no
mask; it passes their boundaries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from scorer.forward.attention.flex import FlexAttention
from scorer.forward.attention.plan import AttentionPlan
from scorer.forward.attention.segmented import SegmentedAttention, WindowedAttention
from scorer.forward.attention.varlen import VarlenAttention, VarlenWindows

PACKED: Final = "tokensight_packed"
WINDOWED: Final = "tokensight_flash_windowed"
"""transformers hands a vision tower's boundaries only to an attention with "flash" in its name."""

TextAttention = SegmentedAttention | FlexAttention | VarlenAttention
Backend = type[SegmentedAttention] | type[FlexAttention] | type[VarlenAttention]
Attention = TextAttention | WindowedAttention | VarlenWindows
Keys = tuple[Tensor, Tensor]
"""A layer's keys and values, [1, H', P, D] each."""


def tower_attention(lengths: Sequence[int], backend: Backend) -> Attention:
    """Return the attention of sequences end to end, each of which sees itself whole."""
    if backend is SegmentedAttention:
        return WindowedAttention(lengths)
    if backend is VarlenAttention:
        return VarlenWindows(lengths)
    return FlexAttention(AttentionPlan.of_lengths(lengths), [None])


@dataclass(eq=False)
class BatchAttention:
    """The attention of one packed batch.

    Attributes:
        text: the decoder's.
        towers: a vision tower's, by the bytes of the boundaries that it passes.
        kept: keys and values by layer that stand before the batch's own; empty if there are none.
        capture: ranges of the batch's own keys that :attr:`captured` takes, by name.
        captured: keys and values by name and layer, filled by the forward pass.
    """

    text: TextAttention
    towers: Mapping[bytes, Attention]
    kept: Sequence[Keys] = ()
    capture: Mapping[bytes, tuple[int, int]] = field(default_factory=dict)
    captured: dict[bytes, list[Keys]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """What a layer receives as its mask: the batch's attention, and the layer's sliding window in places."""

    batch: BatchAttention
    window: int | None
    shape: tuple[int, ...] = ()
    """The shape of the mask that this stands for: PaliGemma's decoder looks at it."""

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)


_running: ContextVar[BatchAttention] = ContextVar("the batch that a model is running in this thread")
"""transformers cannot pass the batch to its mask functions."""


@contextmanager
def packed_attention(text: Sequence[Any], towers: Sequence[Any], batch: BatchAttention) -> Iterator[None]:
    """Have a model run with a batch's attention.

    Args:
        text: the configurations that the decoder's modules read.
        towers: those of a vision tower that cuts its patches into windows.
        batch: the batch.
    """
    before = [(config, config._attn_implementation_internal) for config in (*text, *towers)]
    token = _running.set(batch)
    try:
        for config in text:
            config._attn_implementation_internal = PACKED
        for config in towers:
            config._attn_implementation_internal = WINDOWED
        yield
    finally:
        _running.reset(token)
        for config, name in before:
            config._attn_implementation_internal = name


def _mask(
    *args: Any, q_length: int, kv_length: int, attention_mask: Any, local_size: int | None = None, **kwargs: Any
) -> LayerAttention:
    if isinstance(attention_mask, LayerAttention):
        return attention_mask
    return LayerAttention(_running.get(), local_size, (1, 1, q_length, kv_length))


# torch.compile would compile it again for each batch; FlexAttention's kernel is compiled on its own.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _packed(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: LayerAttention,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as the batch's plan says: query [1, H, N, D], key and value [1, H', N, D] → [1, N, H, D]."""
    batch = attention_mask.batch
    for name, (start, stop) in batch.capture.items():
        kept = (key[:, :, start:stop].clone(), value[:, :, start:stop].clone())
        batch.captured.setdefault(name, []).append(kept)
    if batch.kept:
        before = batch.kept[module.layer_idx]
        key, value = (torch.cat([a, b], dim=2) for a, b in zip(before, (key, value), strict=True))
    out = batch.text(query, key, value, scaling, attention_mask.window, softcap)
    return out.transpose(1, 2).contiguous(), None


def _windowed(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    cu_seq_lens_q: Tensor,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    attend = _running.get().towers[cu_seq_lens_q.numpy().tobytes()]
    out = attend(query, key, value, scaling, None, None)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(PACKED, _packed)
AttentionMaskInterface.register(PACKED, _mask)
AttentionInterface.register(WINDOWED, _windowed)
