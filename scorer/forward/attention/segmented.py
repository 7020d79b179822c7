"""Attend by segments: a few calls of SDPA, each over the keys that its queries may see. Runs on every device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, softmax

from scorer.forward.attention.plan import AttentionPlan


class SegmentedAttention:
    """The attention of one plan by segments.

    Attributes:
        arrays: what must be on the device, by name.

    Args:
        plan: who attends to whom.
        windows: the sliding windows of the model's layers, in places; None for a layer that sees all.
    """

    def __init__(self, plan: AttentionPlan, windows: Iterable[int | None]) -> None:
        self._plan = plan
        self._names: dict[int | None, list[str | None]] = {}
        self.arrays: dict[str, npt.NDArray[Any]] = {}
        self._tensors: Mapping[str, Tensor] = {}
        for window in {plan.limit(window) for window in windows}:
            names: list[str | None] = []
            for i, call in enumerate(plan.calls):
                plain = call.causal and window is None
                names.append(None if plain else f"mask {window} {i}")
                if not plain:
                    self.arrays[f"mask {window} {i}"] = plan.mask(call, window)[None, None]
            self._names[window] = names

    def place(self, tensors: Mapping[str, Tensor]) -> None:
        """Take :attr:`arrays` as tensors on the device."""
        self._tensors = tensors

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None, softcap: float | None
    ) -> Tensor:
        """Return the attention's output [1, H, N, D].

        Args:
            query: [1, H, N, D].
            key, value: [1, H', K, D]; H is a multiple of H'.
            scale: what scores are multiplied by; None for 1 / √D.
            window: the number of places that a layer sees back; None for all.
            softcap: cap of the scores, cap · tanh(score / cap); None for none.
        """
        out = []
        for call, name in zip(self._plan.calls, self._names[self._plan.limit(window)], strict=True):
            mask = None if name is None else self._tensors[name]
            q = query[:, :, slice(*call.queries)]
            k, v = (_ranges(one, call.keys) for one in (key, value))
            out.append(_attend(q, k, v, mask, scale, softcap).transpose(1, 2))
        done = sum(stop - start for start, stop in (call.queries for call in self._plan.calls))
        assert done == query.shape[2], f"{done} of {query.shape[2]} queries have a call"
        # Joined in the order in which the caller reads them, [1, N, H, D]: along axis 2, they would be copied twice.
        return (out[0] if len(out) == 1 else torch.cat(out, dim=1)).transpose(1, 2)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None, softcap: float | None
) -> Tensor:
    """Return softmax(cap(scale · Q Kᵀ)) V; causal without a mask, then with as many keys as queries."""
    grouped = query.shape[1] != key.shape[1]
    if softcap is None:
        if grouped and mask is not None:  # grouped queries have no fast kernel with a mask
            key, value = (one.repeat_interleave(query.shape[1] // one.shape[1], dim=1) for one in (key, value))
            grouped = False
        options: dict[str, Any] = {"is_causal": True} if mask is None else {"attn_mask": mask}
        return scaled_dot_product_attention(query, key, value, scale=scale, enable_gqa=grouped, **options)
    key, value = (one.repeat_interleave(query.shape[1] // one.shape[1], dim=1) for one in (key, value))
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    return softmax(scores.masked_fill(~mask, float("-inf")), dim=-1, dtype=torch.float32).to(query.dtype) @ value


def _ranges(tensor: Tensor, ranges: Sequence[tuple[int, int]]) -> Tensor:
    """Return [1, H, …, D] of some ranges along axis 2: a view of one range, a copy of several."""
    if len(ranges) == 1:
        return tensor[:, :, slice(*ranges[0])]
    return torch.cat([tensor[:, :, start:stop] for start, stop in ranges], dim=2)


class WindowedAttention:
    """The attention of sequences end to end, each of which sees itself whole: one call for each distinct length.

    Attributes:
        arrays: what must be on the device, by name.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        sizes = np.asarray(lengths)
        starts = np.cumsum(sizes) - sizes
        self._lengths = [int(size) for size in np.unique(sizes)]
        self.arrays: dict[str, npt.NDArray[Any]] = {}
        self._tensors: Mapping[str, Tensor] = {}
        if len(self._lengths) > 1:
            groups = [(starts[sizes == n][:, None] + np.arange(n)).reshape(-1) for n in self._lengths]
            self.arrays["order"] = np.concatenate(groups)
            self.arrays["back"] = np.argsort(self.arrays["order"])
            self._rows = [len(group) for group in groups]

    def place(self, tensors: Mapping[str, Tensor]) -> None:
        """Take :attr:`arrays` as tensors on the device."""
        self._tensors = tensors

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: None = None, softcap: None = None
    ) -> Tensor:
        """Return the attention's output [1, H, N, D] of queries, keys and values of the same shape."""
        parts = [one[0] for one in (query, key, value)]
        if not self.arrays:
            return _side_by_side(parts, self._lengths[0], scale)[None]
        parts = [one.index_select(1, self._tensors["order"]) for one in parts]
        groups = zip(*(torch.split(one, self._rows, dim=1) for one in parts), strict=True)
        out = [_side_by_side(group, n, scale) for group, n in zip(groups, self._lengths, strict=True)]
        return torch.cat(out, dim=1).index_select(1, self._tensors["back"])[None]


def _side_by_side(parts: Sequence[Tensor], length: int, scale: float | None) -> Tensor:
    """Return [H, n · length, D] of the attention within each of n sequences."""
    q, k, v = (one.view(len(one), -1, length, one.shape[-1]).transpose(0, 1) for one in parts)  # [n, H, length, D]
    return scaled_dot_product_attention(q, k, v, scale=scale).transpose(0, 1).flatten(1, 2)
