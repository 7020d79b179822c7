"""Attend by variable lengths: with torch's variable-length flash attention, ``varlen_attn``, in a few calls per layer.

The kernel takes sequences end to end, causal or not, but no trees. So a tree is cut where it branches, into pieces that
are causal in themselves. A query attends to its own piece and, level by level, to the pieces that this continues:

    A ──┬── B         own        A causal · B causal · C causal
        └── C         level 1    queries of B and C → keys of A, all of them

Softmax over the union of keys follows from the parts' outputs and the logarithms of their sums of exponentials, L:

    out = Σ exp(Lᵢ − L) outᵢ,    L = log Σ exp(Lᵢ)
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scorer.forward.attention.plan import AttentionPlan, Span
from scorer.forward.attention.segmented import SegmentedAttention

log = logging.getLogger(__name__)

AGREES: Final = {torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""The largest difference from attention by segments, of standard normal values. Flash attention has no float32."""


def flash(
    query: Tensor, key: Tensor, value: Tensor, lengths: Lengths, scale: float | None, causal: bool
) -> tuple[Tensor, Tensor]:
    """Attend within sequences end to end: query [N, H, D], key and value [K, H', D].

    Returns:
        the output [N, H, D] and the logarithm of the sum of exponentials, float32 [N, H].
    """
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    out, total = varlen_attn(
        query,
        key,
        value,
        lengths.queries,
        lengths.keys,
        lengths.most_queries,
        lengths.most_keys,
        return_aux=AuxRequest(lse=True),
        scale=scale,
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=query.shape[1] != key.shape[1],
        num_splits=1,  # scores must not depend on the longest sequence of the batch
    )
    return out, total


class Lengths:
    """The lengths of sequences end to end, of queries and of the keys that they attend to.

    Attributes:
        arrays: boundaries, int32 [n + 1] each, by name.
        queries, keys: the same on the device, once placed.
        most_queries, most_keys: of the longest sequence.
    """

    queries: Tensor
    keys: Tensor

    def __init__(self, queries: Sequence[int], keys: Sequence[int]) -> None:
        self.arrays = {name: _ends(sizes) for name, sizes in (("queries", queries), ("keys", keys))}
        self.most_queries, self.most_keys = max(queries), max(keys)

    def place(self, queries: Tensor, keys: Tensor) -> None:
        """Take :attr:`arrays` on the device."""
        self.queries, self.keys = queries, keys


class VarlenAttention:
    """The attention of one plan by variable lengths; arguments and attributes are those of ``SegmentedAttention``.

    Raises:
        ValueError: a key of the plan is seen otherwise than causally, or a window hides one.
    """

    def __init__(self, plan: AttentionPlan, windows: Iterable[int | None]) -> None:
        if any(plan.limit(window) is not None for window in windows) or not _is_causal(plan):
            raise ValueError("variable lengths cannot express a sliding window, or keys that see each other both ways")
        pieces = _pieces(plan.spans)
        self._kept = plan.kept
        self._own = Lengths(*[[piece.stop - piece.start for piece in pieces]] * 2)
        self._levels: list[Lengths] = []
        self.arrays: dict[str, npt.NDArray[Any]] = {f"own {n}": a for n, a in self._own.arrays.items()}
        for i, level in enumerate(_levels(pieces, plan.kept)):
            lengths = Lengths([b - a for (a, b), _ in level], [b - a for _, (a, b) in level])
            self._levels.append(lengths)
            self.arrays |= {f"level {i} {name}": array for name, array in lengths.arrays.items()}
            self.arrays[f"level {i} from"] = np.concatenate([np.arange(*queries) for queries, _ in level])
            self.arrays[f"level {i} to"] = np.concatenate([np.arange(*keys) for _, keys in level])
        self._tensors: Mapping[str, Tensor] = {}

    def place(self, tensors: Mapping[str, Tensor]) -> None:
        """Take :attr:`arrays` as tensors on the device."""
        self._tensors = tensors
        for name, lengths in [("own", self._own), *((f"level {i}", one) for i, one in enumerate(self._levels))]:
            lengths.place(tensors[f"{name} queries"], tensors[f"{name} keys"])

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None, softcap: float | None
    ) -> Tensor:
        if softcap is not None:
            raise ValueError("variable-length flash attention cannot cap scores")
        q, k, v = (one[0].transpose(0, 1) for one in (query, key, value))
        out, total = flash(q, k[self._kept :], v[self._kept :], self._own, scale, causal=True)
        out = out.float()
        for i, lengths in enumerate(self._levels):
            where, to = self._tensors[f"level {i} from"], self._tensors[f"level {i} to"]
            part, sums = flash(q[where], k[to], v[to], lengths, scale, causal=False)
            before = total[where]
            both = torch.logaddexp(before, sums)
            merged = (before - both).exp()[..., None] * out[where] + (sums - both).exp()[..., None] * part.float()
            out, total = out.index_copy(0, where, merged), total.index_copy(0, where, both)
        return out.to(query.dtype).transpose(0, 1)[None]


class VarlenWindows:
    """The attention of sequences end to end, each of which sees itself whole: one call.

    Attributes:
        arrays: what must be on the device, by name.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = Lengths(lengths, lengths)
        self.arrays = self._lengths.arrays

    def place(self, tensors: Mapping[str, Tensor]) -> None:
        """Take :attr:`arrays` as tensors on the device."""
        self._lengths.place(tensors["queries"], tensors["keys"])

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: None = None, softcap: None = None
    ) -> Tensor:
        """Return the attention's output [1, H, N, D] of queries, keys and values of the same shape."""
        q, k, v = (one[0].transpose(0, 1) for one in (query, key, value))
        return flash(q, k, v, self._lengths, scale, causal=False)[0].transpose(0, 1)[None]


@cache
def agrees_on(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Whether variable lengths run on a device and agree there with attention by segments; if not, log a warning."""
    spans = [Span(0, 70, 130, -1), Span(70, 100, 100, 0), Span(100, 130, 130, 0), Span(130, 200, 200, -1)]
    until = np.repeat(np.array([130, 100, 130, 200], dtype=np.int32), [70, 30, 30, 70])
    places, causal = np.arange(200, dtype=np.int32), np.full(200, -1, dtype=np.int32)
    plan = AttentionPlan(places, until, places, causal, spans, 200)
    generator = torch.Generator().manual_seed(0)
    heads = (4, 2, 2)
    q, k, v = (torch.randn(1, h, 200, head_size, generator=generator).to(device, dtype) for h in heads)
    found = []
    try:
        for backend in (VarlenAttention, SegmentedAttention):
            attend = backend(plan, [None])
            attend.place({name: torch.from_numpy(array).to(device) for name, array in attend.arrays.items()})
            found.append(attend(q, k, v, None, None, None).float())
        difference = float((found[0] - found[1]).abs().max())
        problem = f"it differs by {difference:.3g}" if not difference <= AGREES.get(dtype, 0.0) else None
    except Exception as error:  # of the driver, the kernel or an older torch: there is no common type
        problem = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
    if problem is not None:
        log.warning(
            "variable-length flash attention is not used on %s in %s with heads of %d (%s); attention is computed by "
            "segments, with more kernels per batch",
            *(device, str(dtype).removeprefix("torch."), head_size, problem),
        )
    return problem is None


def _is_causal(plan: AttentionPlan) -> bool:
    """Whether each key is seen from its own place on, up to the end of what continues its segment."""
    own = slice(plan.kept, None)
    ends = np.repeat([span.end for span in plan.spans], [span.stop - span.start for span in plan.spans])
    causal = np.array_equal(plan.since[own], np.arange(plan.queries)) and bool((plan.blocks < 0).all())
    return causal and np.array_equal(plan.until[own], ends)


def _pieces(spans: Sequence[Span]) -> list[Span]:
    """Return the spans with each chain joined into one piece: a segment and its only continuation are causal as one."""
    children = np.bincount([span.parent for span in spans if span.parent >= 0], minlength=len(spans))
    pieces: list[Span] = []
    number: list[int] = []  # of the piece that each span is in
    for span in spans:
        if span.parent >= 0 and children[span.parent] == 1 and span.kept == (0, 0):
            first = pieces[number[span.parent]]
            pieces[number[span.parent]] = Span(first.start, span.stop, first.end, first.parent, first.kept)
            number.append(number[span.parent])
        else:
            parent = -1 if span.parent < 0 else number[span.parent]
            pieces.append(Span(span.start, span.stop, span.end, parent, span.kept))
            number.append(len(pieces) - 1)
    return pieces


_Level = list[tuple[tuple[int, int], tuple[int, int]]]
"""Ranges of queries, no two of which overlap, each with the range of keys that it sees whole."""


def _levels(pieces: Sequence[Span], kept: int) -> list[_Level]:
    """Return what queries see above their own pieces, by depth; first, keys that stand before the batch's own."""
    before: _Level = []
    below: list[_Level] = []
    depths: list[int] = []
    for piece in pieces:
        depths.append(0 if piece.parent < 0 else depths[piece.parent] + 1)
        if piece.kept[0] < piece.kept[1]:
            before.append(((piece.start, piece.end), piece.kept))
        if piece.start < piece.stop < piece.end:
            below += [[] for _ in range(depths[-1] + 1 - len(below))]
            below[depths[-1]].append(((piece.stop, piece.end), (piece.start + kept, piece.stop + kept)))
    return [level for level in (before, *below) if level]


def _ends(sizes: Sequence[int]) -> npt.NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
