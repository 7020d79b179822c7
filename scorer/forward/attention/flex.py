"""Attend with FlexAttention: one kernel per layer over the whole batch, which skips blocks in which no key is seen.

The block mask is computed on the host from the plan, block by block; ``create_block_mask`` would hold all N × K pairs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from scorer.forward.attention.plan import AttentionPlan
from scorer.types import BoolArray, Int32Array

log = logging.getLogger(__name__)

BLOCK: Final = 128
"""Queries and keys in one block of the mask, FlexAttention's default."""


class FlexAttention:
    """The attention of one plan by FlexAttention; arguments and attributes are those of ``SegmentedAttention``."""

    def __init__(self, plan: AttentionPlan, windows: Iterable[int | None]) -> None:
        self._plan = plan
        self._windows = {plan.limit(window) for window in windows}
        self.arrays: dict[str, npt.NDArray[Any]] = {
            "rules": np.stack([plan.since, plan.until, plan.places, plan.blocks])
        }
        for window in self._windows:
            seen, whole = visible_blocks(plan, exact=window is None)
            self.arrays[f"counts {window}"], self.arrays[f"blocks {window}"] = _listed(seen & ~whole)
            self.arrays[f"whole counts {window}"], self.arrays[f"whole blocks {window}"] = _listed(whole)
        self._masks: dict[int | None, BlockMask] = {}
        self._caps: dict[float, Any] = {}

    def place(self, tensors: Mapping[str, Tensor]) -> None:
        """Take :attr:`arrays` as tensors on the device."""
        for window in self._windows:
            self._masks[window] = BlockMask.from_kv_blocks(
                tensors[f"counts {window}"],
                tensors[f"blocks {window}"],
                tensors[f"whole counts {window}"],
                tensors[f"whole blocks {window}"],
                BLOCK_SIZE=BLOCK,
                mask_mod=self._rule(tensors["rules"], window),
                seq_lengths=(self._plan.queries, self._plan.keys),
            )

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None, softcap: float | None
    ) -> Tensor:
        attend = _compiled() if query.is_cuda else flex_attention
        out: Tensor = attend(
            query,
            key,
            value,
            score_mod=None if softcap is None else self._score_mod(softcap, query.device),
            block_mask=self._masks[self._plan.limit(window)],
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return out

    def _score_mod(self, softcap: float, device: torch.device) -> Any:
        """Return the function that caps scores; the layers share it. A compiled kernel takes the cap as a tensor."""
        if softcap not in self._caps:
            self._caps[softcap] = _capped(torch.full((), softcap, device=device))
        return self._caps[softcap]

    def _rule(self, rules: Tensor, window: int | None) -> Any:
        since, until, places, blocks = rules
        kept, ignore = self._plan.kept, self._plan.blocks_ignore_window

        def allowed(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Any:
            return (since[k] <= q) & (q < until[k])

        def allowed_near(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Any:
            near = places[q + kept] - places[k] < window
            if ignore:
                near = near | ((blocks[q + kept] == blocks[k]) & (blocks[k] >= 0))
            return allowed(batch, head, q, k) & near

        return allowed if window is None else allowed_near


def _capped(cap: Tensor) -> Any:
    def capped(score: Tensor, batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return capped


def _listed(wanted: BoolArray) -> tuple[Int32Array, Int32Array]:
    """Return each query block's number of wanted key blocks, and the wanted ones first, int32 [1, 1, …]."""
    counts = wanted.sum(axis=1, dtype=np.int32)
    order = np.argsort(~wanted, axis=1, kind="stable").astype(np.int32)
    return counts[None, None], order[None, None]


def visible_blocks(plan: AttentionPlan, exact: bool) -> tuple[BoolArray, BoolArray]:
    """Return which blocks of pairs may hold an allowed one, and in which every pair is, bool [query, key blocks].

    Args:
        exact: whether nothing but the plan's ranges restricts the pairs; otherwise no block counts as whole.
    """
    starts = np.arange(0, plan.queries, BLOCK)
    stops = np.minimum(starts + BLOCK, plan.queries)  # half-open
    edges = np.arange(0, plan.keys, BLOCK)
    low_since, high_since = (f.reduceat(plan.since, edges) for f in (np.minimum, np.maximum))
    low_until, high_until = (f.reduceat(plan.until, edges) for f in (np.minimum, np.maximum))
    seen = (low_since[None] < stops[:, None]) & (starts[:, None] < high_until[None])
    whole = (high_since[None] <= starts[:, None]) & (stops[:, None] <= low_until[None])
    # A last block with fewer queries or keys is never whole: its missing pairs must be masked.
    full = (stops - starts == BLOCK)[:, None] & (np.diff(np.append(edges, plan.keys)) == BLOCK)[None]
    return seen, whole & full if exact else np.zeros_like(whole)


@cache
def runs_on(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Whether FlexAttention compiles and runs on a device; if not, log a warning with the reason."""
    plan = AttentionPlan.of_lengths([BLOCK, BLOCK])
    attend = FlexAttention(plan, [None])
    attend.place({name: torch.from_numpy(array).to(device) for name, array in attend.arrays.items()})
    query = torch.zeros(1, 2, plan.queries, head_size, device=device, dtype=dtype)
    try:
        attend(query, query, query, None, None, None)
    except Exception as error:  # of the compiler, the driver or the kernel: there is no common type
        log.warning(
            "FlexAttention does not run on %s with heads of %d (%s: %s); attention is computed in another way, with "
            "more kernels per batch; another version of torch may help",
            device,
            head_size,
            type(error).__name__,
            str(error).splitlines()[0] if str(error) else "no message",
        )
        return False
    return True


@cache
def _compiled() -> Any:
    """Return FlexAttention as one kernel; uncompiled, it would hold all scores in memory."""
    return torch.compile(flex_attention, dynamic=True)
