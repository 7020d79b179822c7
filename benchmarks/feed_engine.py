"""An engine for `feed.py`: rows as large as a real model's, encoded in a set time, scored as they arrive."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.run.engine import RowEncoder
from scorer.results import Failure
from scorer.types import EncodedSample, Sample
from tests.pipelines.fake_engine import FakeEngine


@dataclass(frozen=True, slots=True)
class HeavyEngine(FakeEngine):
    """Gives every row pixels of ``row_bytes`` bytes, and takes ``encode_seconds`` for it.

    Attributes:
        log: a file that gets a line for each encoded row: begin and end, in seconds since the epoch.
    """

    row_bytes: int = 0
    encode_seconds: float = 0.0
    log: str = ""

    def encoder(self) -> RowEncoder:
        return _HeavyEncoder(self, FakeEngine.encoder(self))


@dataclass(frozen=True, slots=True)
class _HeavyEncoder:
    engine: HeavyEngine
    inner: RowEncoder

    def try_encode(self, sample: Sample) -> EncodedSample | Failure:
        began = time.time()
        row = self.inner.try_encode(sample)
        assert isinstance(row, EncodedSample)
        pixels = np.full(self.engine.row_bytes, len(sample.sample_id), dtype=np.uint8)
        time.sleep(max(0.0, began + self.engine.encode_seconds - time.time()))
        if self.engine.log:
            with Path(self.engine.log).open("a") as log:
                log.write(f"{began} {time.time()}\n")
        return dataclasses.replace(row, clean=dataclasses.replace(row.clean, pixels={"pixel_values": pixels}))
