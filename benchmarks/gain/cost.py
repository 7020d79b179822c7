"""What weights cost a training step: read from Parquet, or made in the step by a second forward pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from benchmarks.gain.learning import UNIFORM, Lesson
from benchmarks.gain.student import Student
from scorer.training import weighted_cross_entropy

NONE, READ, IN_STEP = "no weights", "weights from Parquet", "CAL in the training step"
MID_GREY: Final = 128


def cal_in_the_step(student: Student, pictures: Tensor, ids: Tensor, labels: Tensor, logits: Tensor) -> Tensor:
    """CAL as published: weights [B, T] from the trained model itself, by a forward pass without the picture."""
    with torch.no_grad():
        blank = student(torch.full_like(pictures, MID_GREY), ids)
        at = labels.clamp(min=0)[..., None]
        gap = (logits.gather(-1, at) - blank.gather(-1, at))[..., 0]
        clamped = torch.where(labels >= 0, gap.clamp(1.0, 5.0), 0.0)
        counted = (labels >= 0).float()
        total, count = (torch.nn.functional.avg_pool1d(x[:, None], 3, 1, 1)[:, 0] for x in (clamped, counted))
        return torch.where(labels >= 0, total / count.clamp(min=1e-9), 0.0)


def epoch(
    student: Student, optimizer: torch.optim.Optimizer, lesson: Lesson, way: str, rows: Sequence[int], batch: int
) -> None:
    """The steps over `rows`, each way's own work and all that they share."""
    for first in range(0, len(rows), batch):
        chosen = rows[first : first + batch]
        pictures, ids, labels, weights = lesson.batch(chosen, "CAL" if way == READ else UNIFORM)
        logits = student(pictures, ids[:, :-1])
        if way == IN_STEP:
            weights = cal_in_the_step(student, pictures, ids[:, :-1], labels, logits)
        loss = weighted_cross_entropy(logits, labels, weights, shift=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def measure(lesson: Lesson, batch: int, rounds: int, steps: int = 12) -> dict[str, Any]:
    """Seconds of the same `steps` steps, the three ways in turns; the first round warms up and does not count."""
    rows = np.random.default_rng(0).permutation(len(lesson.rows))[: steps * batch].tolist()
    torch.manual_seed(0)
    student = Student(lesson.tokenizer.get_vocab_size())
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
    times: dict[str, list[float]] = {NONE: [], READ: [], IN_STEP: []}
    for number in range(rounds + 1):
        for way, spent in times.items():
            started = time.process_time()
            epoch(student, optimizer, lesson, way, rows, batch)
            if number:
                spent.append(time.process_time() - started)
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
    lines = ["\n| a training step with | CPU ms | ÷ without weights |", "|---|---|---|"]
    for way, one in found.items():
        ratio = "{ratio:.3f} ({lowest:.3f}–{highest:.3f})".format(**one)
        lines.append(f"| {way} | {one['milliseconds_per_step']:.1f} | {ratio} |")
    return "\n".join(lines)
