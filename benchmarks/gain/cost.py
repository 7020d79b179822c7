"""Measure what weights cost per training step: read from Parquet, or computed in the step by a second forward pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.gain.learning import END_WEIGHT, Lesson, cal_in_the_step
from benchmarks.gain.references import Scores
from benchmarks.gain.student import Student
from scorer.results import TokenScores
from scorer.training import weighted_cross_entropy
from scorer.weights import Method

NONE, READ, IN_STEP = "no weights", "weights from Parquet", "CAL in the training step"
_CAL: Final = Method("cal", {"edges": "paper"})


class Batches(Dataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """A lesson's batches, built in the loader's process as in any trainer: weights are derived and projected there.

    Args:
        rows: the published rows of the lesson's captions; None for no weights.
        chosen: the captions, in order.
        batch: captions a batch.
    """

    def __init__(self, lesson: Lesson, rows: Sequence[TokenScores] | None, chosen: Sequence[int], batch: int) -> None:
        self._lesson, self._rows = lesson, rows
        self._chosen = [chosen[first : first + batch] for first in range(0, len(chosen), batch)]
        self._ones = torch.ones(lesson.ids.shape)

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        images, ids, labels, weights = self._lesson.batch(self._chosen[index], self._ones)
        if self._rows is not None:
            for b, i in enumerate(self._chosen[index]):
                words = self._lesson.carried(i, self._rows[i], _CAL(self._rows[i]))
                weights[b, : len(words) + 1] = torch.from_numpy(np.append(words, np.float32(END_WEIGHT)))
        return images, ids, labels, weights


def epoch(student: Student, optimizer: torch.optim.Optimizer, loader: Iterable[Any], way: str) -> float:
    """Return the seconds of the steps over a loader's batches, counted from the first batch to exclude its startup."""
    started = 0.0
    for images, ids, labels, read in loader:
        started = started or time.perf_counter()
        logits = student(images, ids[:, :-1])
        weights = cal_in_the_step(student, images, ids[:, :-1], labels, logits) if way == IN_STEP else read
        loss = weighted_cross_entropy(logits, labels, weights, shift=False)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return time.perf_counter() - started


def measure(lesson: Lesson, scores: Scores, batch: int, rounds: int, steps: int = 40) -> dict[str, Any]:
    """Time the same `steps` steps in the three ways, in turn; the first round is a warm-up and does not count.

    Returns:
        For each way, the median milliseconds per step and its ratio to the way without weights.
    """
    chosen = np.random.default_rng(0).choice(len(lesson.tokens), steps * batch).tolist()
    rows = scores.rows()
    torch.manual_seed(0)
    student = Student(lesson.tokenizer.get_vocab_size())
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
    times: dict[str, list[float]] = {NONE: [], READ: [], IN_STEP: []}
    for number in range(rounds + 1):
        for way, spent in times.items():
            batches = Batches(lesson, rows if way == READ else None, chosen, batch)
            seconds = epoch(student, optimizer, DataLoader(batches, batch_size=None, num_workers=1), way)
            if number:
                spent.append(seconds)
    return {
        way: {
            "milliseconds_per_step": 1000 * statistics.median(spent) / steps,
            **_ratio([a / b for a, b in zip(spent, times[NONE], strict=True)]),
        }
        for way, spent in times.items()
    }


def _ratio(ratios: Sequence[float]) -> dict[str, float]:
    return {"ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    lines = ["\n| a training step with | ms | ÷ without weights |", "|---|---|---|"]
    for way, one in found.items():
        ratio = "{ratio:.3f} ({lowest:.3f}–{highest:.3f})".format(**one)
        lines.append(f"| {way} | {one['milliseconds_per_step']:.1f} | {ratio} |")
    return "\n".join(lines)
