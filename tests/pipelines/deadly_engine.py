"""An engine on which chosen words are deadly; importable by the processes that it kills."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipelines.run.engine import RowEncoder, RowScorer
from scorer.results import Failure, Result
from scorer.types import EncodedSample, Sample
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.ray_engines import WrappedScorer


@dataclass(frozen=True, slots=True)
class DeadlyEngine(FakeEngine):
    """Dies on a text that holds one of the words.

    Attributes:
        deadly: scoring such a text is a segmentation fault.
        deadly_to_encode: encoding such a text ends the process at once, with status 7.
        deadly_to_load: loading the model kills the process, as the kernel does where memory runs out.
        log: a file that gets one line per process that loads the model.
    """

    deadly: str = ""
    deadly_to_encode: str = ""
    deadly_to_load: bool = False
    log: str = ""

    def encoder(self) -> RowEncoder:
        return _DeadlyEncoder(self, FakeEngine.encoder(self))

    def scorer(self) -> RowScorer:
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(f"{os.getpid()}\n")
        if self.deadly_to_load:
            os.kill(os.getpid(), signal.SIGKILL)
        return _DeadlyScorer(self, FakeEngine.scorer(self))

    @property
    def loads(self) -> int:
        """How many processes have loaded the model."""
        return len(Path(self.log).read_text().split()) if Path(self.log).exists() else 0


@dataclass(frozen=True, slots=True)
class _DeadlyEncoder:
    engine: DeadlyEngine
    inner: RowEncoder

    def try_encode(self, sample: Sample) -> EncodedSample | Failure:
        if self.engine.deadly_to_encode in _words(sample):
            os._exit(7)
        row = self.inner.try_encode(sample)
        if self.engine.deadly in _words(sample) and isinstance(row, EncodedSample):
            row.clean.pixels["deadly"] = row.token_ids
        return row


class _DeadlyScorer(WrappedScorer[DeadlyEngine]):
    def score_batches(self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int) -> list[Result]:
        return self.inner.score_batches(map(self._survived, rows), max_batch_tokens)

    def _survived(self, row: EncodedSample | Failure) -> EncodedSample | Failure:
        if isinstance(row, EncodedSample) and "deadly" in row.clean.pixels:
            # To this thread: to the process, another thread may take it, and this one commits the row meanwhile.
            signal.raise_signal(signal.SIGSEGV)
            time.sleep(60)  # a handler may have put it off for its own words
        return row


def _words(sample: Sample) -> list[str]:
    return " ".join(sample.scored_texts).split()
