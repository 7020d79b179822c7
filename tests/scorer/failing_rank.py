"""A follower that runs out of memory on large batches; what :data:`scorer.ranks.MODULE` names in a test."""

from __future__ import annotations

from typing import Any

import torch

from scorer import rank_process
from scorer.forward.packed import PackedForward

LIMIT = 90
"""Tokens of a batch that fit."""

_run = PackedForward.run


def run(self: PackedForward, batch: Any, keep: Any = ()) -> Any:
    """Run a batch if it fits. Raises torch.OutOfMemoryError before anything is reduced, as a device would."""
    if len(batch.layout.ids) > LIMIT:
        raise torch.OutOfMemoryError(f"{len(batch.layout.ids)} tokens are more than {LIMIT}")
    return _run(self, batch, keep)


if __name__ == "__main__":
    PackedForward.run = run  # type: ignore[method-assign]
    rank_process.main()
