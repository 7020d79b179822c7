"""Compute the labels' logits and log-probabilities from hidden states, without ever holding all logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from scorer.forward.model import ForwardRow, ReferenceModel
from scorer.types import Float32Array

LOGITS_CHUNK: Final = 2**24
"""The most logits held at once, in elements; rows are projected to the vocabulary in chunks of this size (64 MiB)."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelScores:
    """The labels' raw logits and natural-log probabilities in one branch, float32 [N] each."""

    logit: Float32Array
    logprob: Float32Array


def undefined_scores(count: int) -> LabelScores:
    """Return NaN scores for a branch that does not exist."""
    return LabelScores(*(np.full(count, np.nan, dtype=np.float32) for _ in range(2)))


def label_scores(model: ReferenceModel, rows: Sequence[ForwardRow], hidden: Sequence[Tensor]) -> list[LabelScores]:
    """Return the raw logit and log-probability of each row's labels, projecting a chunk of labels at a time.

    Naive form::

        logits = lm_head(hidden).float();  logit = logits[i, labels[i]];  logprob = log_softmax(logits)[i, labels[i]]

    Args:
        rows: B rows with N_b labels each.
        hidden: B tensors [N_b, D], the states that predict the labels.
    """
    both = [values.cpu().numpy() for values in project_labels(model, rows, hidden)]
    splits = np.cumsum([len(row.label_index) for row in rows])[:-1]
    return [LabelScores(*pair) for pair in zip(*(np.split(values, splits) for values in both), strict=True)]


def project_labels(
    model: ReferenceModel, rows: Sequence[ForwardRow], hidden: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return logits and log-probabilities, float32 [N] on the device, of all rows' labels end to end."""
    states = torch.cat(list(hidden))  # [N, D]
    labels = torch.from_numpy(np.concatenate([row.ids[row.label_index] for row in rows])).to(states.device)
    chunk = max(1, LOGITS_CHUNK // model.vocabulary)
    logit, logprob = [], []
    for h, y in zip(torch.split(states, chunk), torch.split(labels, chunk), strict=True):
        logits = model.project(h)  # [chunk, V]
        label_logit = logits.gather(-1, y[:, None].to(logits.device))[:, 0]
        logit.append(label_logit)
        logprob.append(label_logit - logits.logsumexp(-1))
    return torch.cat(logit), torch.cat(logprob)
