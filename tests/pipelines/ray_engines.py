"""Engines whose parts tell where and when they ran; importable by Ray's workers."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from pipelines.run.engine import RowEncoder, RowScorer
from scorer.errors import ModelError
from scorer.results import Failure, Result
from scorer.types import EncodedSample, Sample, Usage
from tests.pipelines.fake_engine import FakeEngine

EngineT = TypeVar("EngineT")


@dataclass(frozen=True)
class Event:
    """A row was encoded (``encode``), given to the model (``take``) or scored (``score``) in a process."""

    time: float
    kind: str
    pid: int


@dataclass(frozen=True)
class WrappedScorer(Generic[EngineT]):
    """The model half of an engine that adds something to another's."""

    engine: EngineT
    inner: RowScorer

    @property
    def path(self) -> str:
        return self.inner.path

    @property
    def usage(self) -> Usage:
        return self.inner.usage


@dataclass(frozen=True, slots=True)
class LoggingEngine(FakeEngine):
    """Writes an event per row, and makes every encoded row ``row_bytes`` large.

    Scoring raises if a row's pixels are not those that were made of its text, when it arrives or at the end of a unit.
    """

    log: str = ""
    row_bytes: int = 0

    def encoder(self) -> RowEncoder:
        return _LoggingEncoder(self, FakeEngine.encoder(self))

    def scorer(self) -> RowScorer:
        return _LoggingScorer(self, FakeEngine.scorer(self))

    def write(self, kind: str, count: int = 1) -> None:
        with Path(self.log).open("a") as file:
            file.write(f"{time.time()} {kind} {os.getpid()}\n" * count)

    def events(self) -> list[Event]:
        """All events so far, in order."""
        lines = [line.split() for line in Path(self.log).read_text().splitlines()]
        return sorted((Event(float(when), kind, int(pid)) for when, kind, pid in lines), key=lambda event: event.time)


@dataclass(frozen=True, slots=True)
class _LoggingEncoder:
    engine: LoggingEngine
    inner: RowEncoder

    def try_encode(self, sample: Sample) -> EncodedSample | Failure:
        row = self.inner.try_encode(sample)
        self.engine.write("encode")
        if isinstance(row, Failure):
            return row
        pixels = {"pixel_values": np.full(self.engine.row_bytes, _level(row), dtype=np.uint8)}
        return dataclasses.replace(row, clean=dataclasses.replace(row.clean, pixels=pixels))


class _LoggingScorer(WrappedScorer[LoggingEngine]):
    def score_batches(self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int) -> list[Result]:
        kept: list[EncodedSample] = []
        results = self.inner.score_batches((self._taken(row, kept) for row in rows), max_batch_tokens)
        for row in kept:  # long after their block was let go
            _check_pixels(row)
        self.engine.write("score", len(results))
        return results

    def _taken(self, row: EncodedSample | Failure, kept: list[EncodedSample]) -> EncodedSample | Failure:
        self.engine.write("take")
        if isinstance(row, EncodedSample):
            _check_pixels(row)
            if not kept:
                kept.append(row)
        return row


def _level(row: EncodedSample) -> int:
    return int(row.token_ids[-1]) % 251


def _check_pixels(row: EncodedSample) -> None:
    pixels = row.clean.pixels["pixel_values"]
    if not (np.asarray(pixels) == _level(row)).all():
        raise AssertionError(f"the pixels of row {row.sample_id} are not its own")


@dataclass(frozen=True, slots=True)
class UnloadableEngine(FakeEngine):
    """A model that passes for one until its weights are loaded."""

    def scorer(self) -> RowScorer:
        raise ModelError("the weights are not what they seemed; choose another --model")
