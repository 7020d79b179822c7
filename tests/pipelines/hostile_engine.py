"""An engine on which words of a text do harm: ``hang-encode`` hangs its encoding, ``gulp-score`` eats the scorer's
memory, and so on for every word of :data:`HARM` and both stages. Importable by the processes that it harms."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipelines.run.engine import RowEncoder, RowScorer
from scorer.results import Failure, Result
from scorer.types import EncodedSample, Sample
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.ray_engines import WrappedScorer


def _gulp() -> None:
    np.empty(1 << 60, dtype=np.uint8)


def _clutch() -> None:
    """Hang and keep the interpreter's lock: no thread of Python's can run."""
    re.match("(a+)+$", "a" * 60 + "b")


HARM: Final[dict[str, Callable[[], object]]] = {
    "hang": lambda: time.sleep(3600),
    "clutch": _clutch,
    "slow": lambda: time.sleep(0.2),
    "nap": lambda: time.sleep(2),
    "gulp": _gulp,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


@dataclass(frozen=True, slots=True)
class HostileEngine(FakeEngine):
    """See the module. Scores are the fake engine's, and so is the fingerprint."""

    def encoder(self) -> RowEncoder:
        return _HostileEncoder(FakeEngine.encoder(self))

    def scorer(self) -> RowScorer:
        return _HostileScorer(self, FakeEngine.scorer(self))


@dataclass(frozen=True, slots=True)
class _HostileEncoder:
    inner: RowEncoder

    def try_encode(self, sample: Sample) -> EncodedSample | Failure:
        words = " ".join(sample.scored_texts).split()
        for name, harm in HARM.items():
            if f"{name}-encode" in words:
                harm()
        row = self.inner.try_encode(sample)
        if isinstance(row, EncodedSample):
            row.clean.pixels.update({name: row.token_ids for name in HARM if f"{name}-score" in words})
        return row


class _HostileScorer(WrappedScorer[HostileEngine]):
    def score_batches(self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int) -> list[Result]:
        return self.inner.score_batches(map(self._harmed, rows), max_batch_tokens)

    def _harmed(self, row: EncodedSample | Failure) -> EncodedSample | Failure:
        for name, harm in HARM.items():
            if isinstance(row, EncodedSample) and name in row.clean.pixels:
                harm()
        return row
