"""A deterministic engine without a model: tokens are words, scores a hash of the text.

It lets tests and benchmarks exercise everything around the model, at a cost per row that is theirs to choose. Rows
without an image are text-only, as with a real engine.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from pipelines.run.engine import RowEncoder, RowScorer
from scorer import columns
from scorer.errors import FailureCode
from scorer.results import Failure, Result, TokenScores
from scorer.table import text_hash
from scorer.types import Branch, EncodedSample, Sample, Usage


@dataclass(frozen=True, slots=True)
class FakeEngine:
    """See the module. Scores depend on the text, on ``seed`` and, as rounding makes a real model's, on the batch.

    Attributes:
        seed: part of the fingerprint; another seed gives other scores.
        seconds_per_row: how long scoring a row takes.
        poison: scoring any batch that holds a text with this string raises, as a broken model would.
        optional: names of the optional columns that it gives.
        by_batch: whether scores depend on which rows share a batch.
        refused: encoding a text with one of these words fails, so that the others are batched without it.
        max_batch_tokens: a few rows' words.
    """

    seed: int = 0
    seconds_per_row: float = 0.0
    poison: str | None = None
    optional: tuple[str, ...] = ()
    by_batch: bool = True
    refused: tuple[str, ...] = ()
    max_batch_tokens: int = 24

    def fingerprint(self) -> dict[str, Any]:
        named = {"columns": list(self.optional)} if self.optional else {}
        return {"model": "fake", "contrast": "blank", "dtype": "float32", "seed": self.seed, **named}

    def check(self) -> None:
        pass

    def pinned(self, fingerprint: dict[str, Any]) -> Self:
        return self

    def encoder(self) -> RowEncoder:
        return _FakeEncoder(self.refused)

    def scorer(self) -> RowScorer:
        return _FakeScorer(self)

    def spell(self) -> Callable[[Sequence[int]], str]:
        return lambda ids: "".join(f"<{number}>" for number in ids)

    def device(self) -> str:
        return "no device"


@dataclass(frozen=True, slots=True)
class _FakeEncoder:
    refused: tuple[str, ...] = ()

    def try_encode(self, sample: Sample) -> EncodedSample | Failure:
        text = sample.scored_texts[0]
        words = list(re.finditer(r"\S+", text))
        if not words:
            return Failure(sample.sample_id, FailureCode.TEXT_MISSING, "the text is empty")
        if any(image == b"corrupt" for image in sample.images):
            return Failure(sample.sample_id, FailureCode.IMAGE_UNREADABLE, "the image does not decode")
        if any(word.group() in self.refused for word in words):
            return Failure(sample.sample_id, FailureCode.TEXT_INVALID, "the text has a refused word")
        starts = [len(text[: word.start()].encode()) for word in words]
        ends = [len(text[: word.end()].encode()) for word in words]
        ids = np.array([_hash(word.group()) for word in words], dtype=np.int64)
        n = len(ids)
        branch = Branch(
            input_ids=np.concatenate([np.zeros(1, np.int64), ids]),
            attend=np.ones(n + 1, dtype=bool),
            label_index=np.arange(1, n + 1),
            pixels={},
            pixels_digest=b"",
        )
        return EncodedSample(
            sample_id=sample.sample_id,
            token_ids=ids.astype(np.int32),
            token_starts=np.array(starts, dtype=np.int32),
            token_ends=np.array(ends, dtype=np.int32),
            token_turns=np.zeros(n, dtype=np.int16),
            text_hash=text_hash([text]),
            clean=branch,
            contrast=branch,
            text_only=sample.text_only,
        )


@dataclass(frozen=True, slots=True)
class _FakeScorer:
    engine: FakeEngine
    path: str = "fake"
    usage: Usage = field(default_factory=Usage)

    def score_batches(self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int) -> list[Result]:
        failed: dict[int, Failure] = {}
        scored = list(self._score_all(self._sound(rows, failed), max_batch_tokens))
        for number in sorted(failed):
            scored.insert(number, failed[number])
        return scored

    def _sound(self, rows: Iterable[EncodedSample | Failure], failed: dict[int, Failure]) -> Iterator[EncodedSample]:
        """Yield the rows to score as they arrive, and put the others aside, by number."""
        poison = None if self.engine.poison is None else _hash(self.engine.poison)
        for number, row in enumerate(rows):
            if isinstance(row, Failure):
                failed[number] = row
            elif poison is not None and poison in row.token_ids:
                raise RuntimeError("the fake model was given poison")
            else:
                yield row
            del row  # or its pixels would wait with it for the next row

    def _score_all(self, rows: Iterable[EncodedSample], max_batch_tokens: int) -> Iterator[Result]:
        """Fill batches in order: the rule is simpler than the real one's, and as much a function of rows and budget.

        No more than a batch is held.
        """
        batch: list[EncodedSample] = []
        for row in rows:
            if batch and sum(one.length for one in (*batch, row)) > max_batch_tokens:
                yield from self._score_batch(batch)
                batch = []
            batch.append(row)
            del row
        yield from self._score_batch(batch)

    def _score_batch(self, rows: list[EncodedSample]) -> list[Result]:
        time.sleep(self.engine.seconds_per_row * len(rows))
        texts = "".join(row.text_hash for row in rows)
        rounding = np.float32(1 + (_hash(texts) % 1000) / 1e5 if self.engine.by_batch else 1)
        return [self._score(row, rounding) for row in rows]

    def _score(self, row: EncodedSample, rounding: np.float32) -> Result:
        seed = hashlib.blake2b(f"{self.engine.seed}{row.text_hash}".encode(), digest_size=8).digest()
        random = np.random.default_rng(int.from_bytes(seed, "little"))
        clean, contrast = -random.exponential(size=(2, len(row.token_ids))).astype(np.float32)
        contrast *= rounding
        raw = {"logit_gap": (clean - contrast) * np.float32(2), "logprob_clean": clean, "logprob_contrast": contrast}
        further = columns.optional(self.engine.optional)
        raw |= {column.name: random.exponential(size=len(clean)).astype(column.dtype) for column in further}
        if row.text_only:
            raw |= dict.fromkeys(("logit_gap", "logprob_clean"), np.full(len(clean), np.nan, np.float32))
        spans = {column.name: getattr(row, column.name) for column in columns.REQUIRED if column.kind == "span"}
        return TokenScores.from_arrays(row.sample_id, row.text_hash, spans | raw, text_only=row.text_only)


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "little") & 0x7FFFFFFF
