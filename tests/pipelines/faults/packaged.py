"""The packaged model in bfloat16, whose scores depend on which rows share a batch, on pictures that it can see."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipelines.run.engine import CheckpointEngine, RowEncoder, RowScorer
from scorer.config import ScorerConfig
from scorer.mini import MODEL_PATH
from scorer.results import Failure
from scorer.types import EncodedSample, Sample
from tests.pipelines.helpers import IMAGE

BUDGET: Final = 320
"""Tokens of two to four rows: a unit has several batches, of several rows each."""
CONFIG: Final = ScorerConfig(dtype="bfloat16", max_batch_tokens=BUDGET)
_WORDS: Final = "a red circle stands over two small blue squares beside the large green heart on beige paper"


def write_pictures(root: Path, shards: Mapping[str, int]) -> Path:
    """A dataset of coloured rectangles with captions of 3 to 17 words, seeded by the row."""
    for name, rows in shards.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {
            "id": pa.array([str(i) for i in range(rows)]),
            "image": pa.array([{"bytes": _picture(i), "path": None} for i in range(rows)], IMAGE),
            "caption": pa.array([_caption(name, i) for i in range(rows)]),
        }
        pq.write_table(pa.table(columns), path, row_group_size=7)
    return root


def _picture(i: int) -> bytes:
    random = np.random.default_rng(i)
    pixels = np.full((64, 64, 3), 230, dtype=np.uint8)
    pixels[16:48, 10 : 20 + i % 40] = random.integers(0, 255, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _caption(name: str, i: int) -> str:
    random, words = np.random.default_rng([i, len(name)]), _WORDS.split()
    return " ".join(random.permutation(words)[: random.integers(3, len(words))]) + "."


def packaged_engine() -> CheckpointEngine:
    """The engine as a run makes it."""
    return CheckpointEngine(str(MODEL_PATH), CONFIG)


@dataclass(frozen=True, slots=True)
class LoadedEngine(CheckpointEngine):
    """The same, loaded once a process, for thousands of runs in it."""

    model: str = str(MODEL_PATH)
    config: ScorerConfig = field(default=CONFIG)

    def encoder(self) -> RowEncoder:
        return _loaded_encoder()

    def scorer(self) -> RowScorer:
        return _loaded_scorer()


@dataclass(frozen=True, slots=True)
class KillingEngine(CheckpointEngine):
    """The same, whose encoder ends the process at the row with the id ``killer``."""

    model: str = str(MODEL_PATH)
    config: ScorerConfig = field(default=CONFIG)
    killer: str = ""

    def encoder(self) -> RowEncoder:
        return _KillingEncoder(packaged_engine().encoder(), self.killer)


@dataclass(frozen=True, slots=True)
class _KillingEncoder:
    inner: RowEncoder
    killer: str

    def try_encode(self, sample: Sample) -> EncodedSample | Failure:
        if sample.sample_id == self.killer:
            os._exit(7)
        return self.inner.try_encode(sample)


@cache
def _loaded_encoder() -> RowEncoder:
    return packaged_engine().encoder()


@cache
def _loaded_scorer() -> RowScorer:
    return packaged_engine().scorer()
