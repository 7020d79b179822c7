"""Packed blocks for tests of what moves them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.executors.packing import PackedBlock
from pipelines.output.plan import Unit
from pipelines.run.trials import Trials
from pipelines.sources import Shard
from scorer.errors import FailureCode
from scorer.results import Failure

SHARD = Shard("a.parquet", "a.parquet", 1, "e", 1_000_000)


def unit(start: int, rows: int) -> Unit:
    return Unit(f"u{start}", SHARD, start, start + rows)


def block(start: int, stop: int, row_bytes: int, seconds: float = 0.001, trials: Trials | None = None) -> PackedBlock:
    """Rows that failed, named by their number, said to have so many bytes each."""
    import pickle

    rows: Sequence[Failure] = [Failure(str(i), FailureCode.IMAGE_MISSING, "") for i in range(start, stop)]
    count = stop - start
    arrays = [np.zeros(1, np.uint8)]
    return PackedBlock(
        count, count * row_bytes, {"encode": count * seconds}, trials or Trials(), pickle.dumps(list(rows)), arrays
    )
