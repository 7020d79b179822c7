"""Run prefixes that many rows share once, keep their keys and values, and continue them with each row's tokens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from scorer.forward.model import ForwardRow, ReferenceModel


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """The state that a forward pass over P tokens leaves for its continuations.

    Attributes:
        keys, values: [1, heads, P, head size] per layer.
        last_hidden: [D]; predicts the token after the prefix, so the first label may need it.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    last_hidden: Tensor

    @property
    def length(self) -> int:
        """The number of tokens, P."""
        return int(self.keys[0].shape[-2])

    @property
    def nbytes(self) -> int:
        """The device memory that it holds, in bytes."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values, self.last_hidden))


class PrefixCache:
    """Prefixes by key; above a limit in bytes, the least recently used ones are dropped."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._kept: OrderedDict[bytes, Prefix] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._kept

    def get(self, key: bytes) -> Prefix | None:
        """Return the prefix kept under ``key`` and mark it as used; None if there is none."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: bytes, prefix: Prefix) -> None:
        """Keep a prefix, unless it is larger than the limit."""
        if prefix.nbytes > self.limit or key in self._kept:
            return
        self._kept[key] = prefix
        self.nbytes += prefix.nbytes
        while self.nbytes > self.limit:
            _, dropped = self._kept.popitem(last=False)
            self.nbytes -= dropped.nbytes


class _PrefixLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """One layer's keys and values of each row's prefix. It returns prefix + new, and stores nothing new.

    A forward pass mutates an ordinary cache, which would have to be copied for every row. Here, rows with the same
    prefix share its memory; it is only expanded while its layer runs.
    """

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        super().__init__()
        self._prefix = (keys, values)  # one [1, heads, P, head size] for all rows, or one for each
        self.keys, self.values = keys[0], values[0]
        self.dtype, self.device = self.keys.dtype, self.keys.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = (_followed_by(*pair) for pair in zip(self._prefix, (key_states, value_states), strict=True))
        return keys, values


def _followed_by(prefix: Sequence[Tensor], new: Tensor) -> Tensor:
    """Concatenate prefixes and new states into [B, heads, P + T, head size]."""
    before = prefix[0].expand(len(new), -1, -1, -1) if len(prefix) == 1 else torch.cat(list(prefix))
    return torch.cat([before, new], dim=-2)


def run_prefix(model: ReferenceModel, row: ForwardRow, length: int) -> Prefix:
    """Run a forward pass over a row's first ``length`` tokens, which must include all its images."""
    cache = DynamicCache()  # without a configuration, so that sliding-window layers also keep all positions
    hidden = model.hidden(
        ids=[row.ids[:length]],
        positions=[row.positions[:, :length]],
        attend=[row.attend[:length]],
        pixels=[row.pixels],
        token_inputs=[{name: values[:length] for name, values in row.token_inputs.items()}],
        cache=cache,
    )  # [1, P, D]
    layers = cache.layers
    return Prefix(tuple(one.keys for one in layers), tuple(one.values for one in layers), hidden[0, -1].clone())


def continue_prefixes(model: ReferenceModel, rows: Sequence[ForwardRow], prefixes: Sequence[Prefix]) -> list[Tensor]:
    """Run each row's tokens after its prefix; return the states [N_b, D] that predict its labels.

        row        <user> ▢ ▢ ▢ ▢ What ? <assistant> | A  red  kite      P = 8
        prefix     ------------------------------- → | run: A red        "kite" is a label only, so it is not run
        predicts                          last_hidden → A;  A → red;  red → kite

    All prefixes have the same length P; labels lie at P or later.
    """
    start = prefixes[0].length
    # A row whose only label directly follows its prefix still runs that label, so that no row of a batch is empty.
    ends = [max(start + 1, int(row.label_index[-1])) for row in rows]
    states = [prefix.last_hidden[None] for prefix in prefixes]  # position P - 1: [1, D]
    if any(int(row.label_index[-1]) > start for row in rows):
        hidden = model.hidden(
            ids=[row.ids[start:end] for row, end in zip(rows, ends, strict=True)],
            positions=[row.positions[:, start:end] for row, end in zip(rows, ends, strict=True)],
            attend=[row.attend[:end] for row, end in zip(rows, ends, strict=True)],
            cache=_cache_of(prefixes),
        )  # positions P …: [B, T, D]
        states = [torch.cat([before, after]) for before, after in zip(states, hidden, strict=True)]
    return [
        state[torch.from_numpy(row.label_index - start).to(state.device)]
        for state, row in zip(states, rows, strict=True)
    ]


def _cache_of(prefixes: Sequence[Prefix]) -> Cache:
    rows = prefixes[:1] if all(prefix is prefixes[0] for prefix in prefixes) else prefixes
    layers = range(len(rows[0].keys))
    return Cache(layers=[_PrefixLayer([row.keys[i] for row in rows], [row.values[i] for row in rows]) for i in layers])
