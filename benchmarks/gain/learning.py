"""Train one student with weights read from Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from benchmarks.gain.noisy import GENERIC, Example
from benchmarks.gain.student import Student, Tokens, encode, images_of, train_tokenizer
from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL
from scorer.mini.language.labels import token_labels
from scorer.spans import project
from scorer.training import WeightRow, read_weights, weighted_cross_entropy
from scorer.weights import Method

UNIFORM, ORACLE = "uniform", "oracle"
METHODS: Final[Mapping[str, Method | None]] = {
    UNIFORM: None,
    "CAL": Method("cal"),
    "CAL, window 1": Method("cal", {"window": 1}),
    "PRIOR": Method("prior"),
    "VIG": Method("vig-row"),
    ORACLE: None,
}
"""The methods compared. The oracle knows which words were spoilt and gives them weight 0: the most weights can do."""

LABELS: Final = (CONTRADICTORY, GENERIC, VISUAL, FILLER)

END_WEIGHT: Final = 1.0
"""The weight of the end of a caption, which is not scored; a student must learn to stop."""

RATE: Final = 2e-3


@dataclass(frozen=True)
class Lesson:
    """A training set as a student sees it: images uint8 [N, 3, H, W], its tokens, and the published rows."""

    examples: Sequence[Example]
    rows: Sequence[WeightRow]
    tokenizer: Tokenizer
    images: Tensor
    tokens: Sequence[Tokens]

    @classmethod
    def read(cls, examples: Sequence[Example], weights: Path) -> Lesson:
        """Read a training set's weights.

        Raises:
            RuntimeError: a row was not scored.
            TableError: a row's caption is not the one that was scored.
        """
        rows = list(read_weights(weights))
        for example, row in zip(examples, rows, strict=True):
            if not row.ok:
                raise RuntimeError(f"row {row.row_index} was not scored: {row.error}")
            row.check_text([example.caption.text])
        tokenizer = train_tokenizer([example.caption.text for example in examples])
        tokens = [encode(tokenizer, example.caption.text) for example in examples]
        return cls(examples, rows, tokenizer, images_of(examples), tokens)

    @cached_property
    def labels(self) -> list[list[str | None]]:
        """The true label of each of the student's tokens except the end."""
        return [
            token_labels(t.starts.tolist(), t.ends.tolist(), example.caption.spans, LABELS)
            for t, example in zip(self.tokens, self.examples, strict=True)
        ]

    def weights(self, method: str, index: int) -> np.ndarray:
        """Return the weights of a row's tokens and its end, float32."""
        tokens, row = self.tokens[index], self.rows[index]
        if method == UNIFORM:
            return np.ones(len(tokens.ids), dtype=np.float32)
        if method == ORACLE:
            found = np.array([label not in (CONTRADICTORY, GENERIC) for label in self.labels[index]], dtype=np.float32)
        else:
            derive = METHODS[method]
            assert derive is not None and row.scores is not None
            scores = row.scores
            found = project(derive(scores), scores.token_starts, scores.token_ends, tokens.starts, tokens.ends)
        return np.append(found, np.float32(END_WEIGHT))

    def weights_by_label(self) -> dict[str, dict[str, float]]:
        """Return the mean weight of the tokens of each label, for each method."""
        labels = np.array([label or FILLER for row in self.labels for label in row])
        means = {}
        for method in METHODS:
            values = np.concatenate([self.weights(method, i)[:-1] for i in range(len(self.rows))])
            means[method] = {
                label: float(values[labels == label].mean()) for label in LABELS if (labels == label).any()
            }
        return means

    def batch(self, indices: Sequence[int], method: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return images [B, 3, H, W], ids [B, T] with padding, labels [B, T] with -100 for it, weights [B, T]."""
        shape = len(indices), max(len(self.tokens[i].ids) for i in indices)
        ids, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, -100)
        weights = torch.zeros(shape)
        for b, i in enumerate(indices):
            n = len(self.tokens[i].ids)
            ids[b, :n] = labels[b, :n] = torch.tensor(self.tokens[i].ids)
            weights[b, :n] = torch.from_numpy(self.weights(method, i))
        return self.images[list(indices)], ids, labels, weights


def train(lesson: Lesson, method: str, seed: int, steps: int, batch: int) -> Student:
    """Train a student on `lesson`. The seed sets initialisation and row order; the method changes only the weights."""
    torch.manual_seed(seed)
    student = Student(lesson.tokenizer.get_vocab_size())
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    order = np.random.default_rng(seed)
    rows: list[int] = []
    for _ in range(steps):
        if len(rows) < batch:
            rows = order.permutation(len(lesson.rows)).tolist()
        chosen, rows = rows[:batch], rows[batch:]
        images, ids, labels, weights = lesson.batch(chosen, method)
        loss = weighted_cross_entropy(student(images, ids[:, :-1]), labels, weights, shift=False)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return student
