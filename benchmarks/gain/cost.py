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

from benchmarks.gain.learning import UNIFORM, Lesson
from benchmarks.gain.student import Student
from scorer.training import weighted_cross_entropy

NONE, READ, IN_STEP = "no weights", "weights from Parquet", "CAL in the training step"
MID_GREY: Final = 128


def cal_in_the_step(student: Student, images: Tensor, ids: Tensor, labels: Tensor, logits: Tensor) -> Tensor:
    """Return weights [B, T] as CAL's authors compute them, by a forward pass of the trained model without the image."""
    with torch.no_grad():
        blank = student(torch.full_like(images, MID_GREY), ids)
        at = labels.clamp(min=0)[..., None]
        gap = (logits.gather(-1, at) - blank.gather(-1, at))[..., 0]
        clamped = torch.where(labels >= 0, gap.clamp(1.0, 5.0), 0.0)
        counted = (labels >= 0).float()
        total, count = (torch.nn.functional.avg_pool1d(x[:, None], 3, 1, 1)[:, 0] for x in (clamped, counted))
        return torch.where(labels >= 0, total / count.clamp(min=1e-9), 0.0)


class Batches(Dataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """A lesson's batches, built in the loader's process as in any trainer, including the projection of the weights."""

    def __init__(self, lesson: Lesson, method: str, rows: Sequence[int], batch: int) -> None:
        self._lesson, self._method = lesson, method
        self._chosen = [rows[first : first + batch] for first in range(0, len(rows), batch)]

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self._lesson.batch(self._chosen[index], self._method)


def epoch(student: Student, optimizer: torch.optim.Optimizer, loader: Iterable[Any], way: str) -> float:
    """Return the seconds of the steps over a loader's batches, counted from the first batch to exclude its startup."""
    started = 0.0
    for images, ids, labels, read in loader:
        started = started or time.perf_counter()
        logits = student(images, ids[:, :-1])
        weights = cal_in_the_step(student, images, ids[:, :-1], labels, logits) if way == IN_STEP else read
        loss = weighted_cross_entropy(logits, labels, weights, shift=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def measure(lesson: Lesson, batch: int, rounds: int, steps: int = 40) -> dict[str, Any]:
    """Time the same `steps` steps in the three ways, in turn; the first round is a warm-up and does not count.

    Returns:
        For each way, the median milliseconds per step and its ratio to the way without weights.
    """
    rows = np.random.default_rng(0).choice(len(lesson.rows), steps * batch).tolist()
    torch.manual_seed(0)
    student = Student(lesson.tokenizer.get_vocab_size())
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
    times: dict[str, list[float]] = {NONE: [], READ: [], IN_STEP: []}
    for number in range(rounds + 1):
        for way, spent in times.items():
            batches = Batches(lesson, "CAL" if way == READ else UNIFORM, rows, batch)
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
