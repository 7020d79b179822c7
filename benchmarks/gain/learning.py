"""Train one student with given weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from benchmarks.gain.methods import IN_STEP, ORACLE, UNIFORM, Weighting
from benchmarks.gain.noisy import GENERIC, Example
from benchmarks.gain.references import MID_GREY, Scores
from benchmarks.gain.student import Student, Tokens, encode, images_of, student_tokenizer
from scorer.mini.language.caption_writer import CONTRADICTORY, FILLER, VISUAL
from scorer.mini.language.labels import token_labels
from scorer.results import TokenScores
from scorer.spans import apportion, project
from scorer.statistics import auroc
from scorer.training import weighted_cross_entropy
from scorer.types import BoolArray, Float32Array

LABELS: Final = (CONTRADICTORY, GENERIC, VISUAL, FILLER)

END_WEIGHT: Final = 1.0
"""The weight of the end of a caption, whatever the method: the mean, since a student must learn to stop. VIG as
published would drop nearly all ends, which its authors' students, trained before, could afford."""


@dataclass(frozen=True)
class Lesson:
    """A training set as a student sees it: N captions, their images uint8 [N, 3, H, W] and tokens."""

    examples: Sequence[Example]
    tokenizer: Tokenizer
    images: Tensor
    tokens: Sequence[Tokens]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Lesson:
        """Draw and encode examples."""
        tokenizer = student_tokenizer()
        tokens = [encode(tokenizer, example.caption.text) for example in examples]
        return cls(examples, tokenizer, images_of(examples), tokens)

    @cached_property
    def lengths(self) -> Tensor:
        """How many tokens each caption has, its end among them, int64 [N]."""
        return torch.tensor([len(one.ids) for one in self.tokens])

    @cached_property
    def labels(self) -> list[list[str | None]]:
        """The true label of each of the student's tokens except the end."""
        return [
            token_labels(t.starts.tolist(), t.ends.tolist(), example.caption.spans, LABELS)
            for t, example in zip(self.tokens, self.examples, strict=True)
        ]

    @cached_property
    def ids(self) -> Tensor:
        """Ids of all captions, int64 [N, T], padded with -100."""
        return _padded([torch.tensor(one.ids) for one in self.tokens], -100)

    @cached_property
    def _flat_labels(self) -> np.ndarray:
        return np.array([label or FILLER for row in self.labels for label in row])

    def word_weights(self, scores: Scores | None, weighting: Weighting) -> list[Float32Array]:
        """Return a method's weights of each caption's tokens except the end, before they are normalised.

        Args:
            scores: of the captions, by a reference model; None if the method needs none.

        Raises:
            RuntimeError: the scores are those of other captions.
        """
        if weighting.method in (UNIFORM, IN_STEP):
            return [np.ones(len(one.starts), np.float32) for one in self.tokens]
        if weighting.method == ORACLE:
            return [
                np.array([label not in (CONTRADICTORY, GENERIC) for label in row], np.float32) for row in self.labels
            ]
        assert scores is not None, f"{weighting.method} derives its weights from scores"
        return [self.carried(index, *found) for index, found in enumerate(scores.weights(weighting))]

    def carried(self, index: int, scores: TokenScores, weights: Float32Array) -> Float32Array:
        """Carry the weights of a caption's tokens by the reference model over to the student's, except the end."""
        scored = ~scores.is_stop
        tokens = self.tokens[index]
        spans = scores.token_starts[scored], scores.token_ends[scored], tokens.starts, tokens.ends
        return project(weights[scored], *spans)

    def weights(self, scores: Scores | None, weighting: Weighting) -> Tensor:
        """Return a method's weights of all tokens, float32 [N, T], 0 where a caption has ended.

        They are divided by their mean over the dataset's tokens, so that a learning rate means the same for every
        method; then each end has `END_WEIGHT`.

        Raises:
            ValueError: all of them are 0.
        """
        words = self.word_weights(scores, weighting)
        mean = float(np.concatenate(words).mean(dtype=np.float64))
        if not mean > 0:
            raise ValueError(f"{weighting.method}: the mean weight of the dataset is {mean}; nothing can be learned")
        end = torch.tensor([END_WEIGHT])
        return _padded([torch.cat([torch.from_numpy(row) / mean, end]) for row in words], 0.0)

    def means(self, weights: Tensor) -> dict[str, float]:
        """Return the mean of weights [N, T] over the tokens of each label."""
        values = np.concatenate([row[: n - 1] for row, n in zip(weights.numpy(), self.lengths.tolist(), strict=True)])
        return self._by_label(values)

    def _by_label(self, values: np.ndarray) -> dict[str, float]:
        chosen: dict[str, BoolArray] = {label: self._flat_labels == label for label in LABELS}
        return {label: float(values[there].mean()) for label, there in chosen.items() if there.any()}

    def aurocs(self, scores: Scores) -> dict[str, float]:
        """Return how well the log-probability gap tells words apart, on the student's tokens.

        So all references are measured on the same tokens: log-probabilities add up, and are carried over by bytes.
        """
        gaps = []
        for tokens, one in zip(self.tokens, scores.rows(), strict=True):
            scored = ~one.is_stop
            spans = one.token_starts[scored], one.token_ends[scored], tokens.starts, tokens.ends
            gaps.append(apportion(one.logprob_gap[scored], *spans))
        gap = np.concatenate(gaps)
        by_label = {label: gap[self._flat_labels == label] for label in LABELS}
        return {
            "visual / filler": auroc(by_label[VISUAL], by_label[FILLER]),
            "true / contradictory": auroc(by_label[VISUAL], by_label[CONTRADICTORY]),
        }

    def batch(self, rows: Sequence[int], weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return images [B, 3, H, W], ids [B, T] with padding, labels [B, T] with -100 for it, weights [B, T]."""
        chosen = torch.tensor(rows)
        longest = int(self.lengths[chosen].max())
        labels = self.ids[chosen, :longest]
        return self.images[chosen], labels.clamp(min=0), labels, weights[chosen, :longest]


def _padded(rows: list[Tensor], value: float) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)


def new_student(seed: int) -> Student:
    """Return a student with the random weights of a seed."""
    torch.manual_seed(seed)
    return Student(student_tokenizer().get_vocab_size())


def train(
    student: Student,
    lesson: Lesson,
    weights: Tensor | None,
    *,
    seed: int,
    rate: float,
    steps: int,
    batch: int,
    stop_after: int | None = None,
) -> Student:
    """Train a student in place, and return it.

    The loss of a batch is Σ w·loss ÷ its number of tokens, as trainers divide, with weights whose mean is 1: a batch of
    unimportant tokens moves the student less.

    Args:
        weights: float32 [N, T]; None for CAL's, computed in the step and divided by the batch's mean.
        seed: of the order of rows, which depends on nothing else.
        rate: the highest learning rate, after a tenth of the steps.
        stop_after: steps to take of the `steps` that the schedule is for.
    """
    optimizer = torch.optim.AdamW(student.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    order = np.random.default_rng(seed)
    rows: list[int] = []
    read = torch.ones(lesson.ids.shape) if weights is None else weights
    for _ in range(steps if stop_after is None else stop_after):
        if len(rows) < batch:
            rows = order.permutation(len(lesson.tokens)).tolist()
        chosen, rows = rows[:batch], rows[batch:]
        images, ids, labels, given = lesson.batch(chosen, read)
        logits = student(images, ids[:, :-1])
        total = (labels >= 0).sum()
        if weights is None:
            given = cal_in_the_step(student, images, ids[:, :-1], labels, logits)
            given = given * (total / given.sum())
        loss = weighted_cross_entropy(logits, labels, given, shift=False, total=total)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return student


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
