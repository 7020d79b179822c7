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
"""The most logits, or converted states, held at once, in elements: rows are projected in chunks (64 MiB)."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelScores:
    """The labels' raw logits and natural-log probabilities in one branch, float32 [N] each."""

    logit: Float32Array
    logprob: Float32Array


def undefined_scores(count: int) -> LabelScores:
    """Return NaN scores for a branch that does not exist."""
    return LabelScores(*(np.full(count, np.nan, dtype=np.float32) for _ in range(2)))


def label_scores(model: ReferenceModel, rows: Sequence[ForwardRow], hidden: Sequence[Tensor]) -> list[LabelScores]:
    """Return the raw logit and log-probability of each row's labels.

    Args:
        rows: B rows with N_b labels each.
        hidden: B tensors [N_b, D], the states that predict the labels.
    """
    states = torch.cat(list(hidden))
    labels = torch.from_numpy(np.concatenate([row.ids[row.label_index] for row in rows])).to(states.device)
    return split_scores(project_labels(model, states, labels), [len(row.label_index) for row in rows])


def project_labels(model: ReferenceModel, states: Tensor, labels: Tensor) -> Tensor:
    """Return the raw logits and log-probabilities of labels, float32 [2, N] on the device, a chunk at a time.

    Naive form::

        logits = lm_head(states.float());  logit = logits[i, labels[i]];  logprob = log_softmax(logits)[i, labels[i]]

    Args:
        states: [N, D], the states that predict the labels.
        labels: int64 [N].
    """
    chunk = max(1, LOGITS_CHUNK // model.projection_width)
    parts = zip(torch.split(states, chunk), torch.split(labels, chunk), strict=True)
    return torch.cat([_project_chunk(model, h, y) for h, y in parts], dim=1)


def _project_chunk(model: ReferenceModel, states: Tensor, labels: Tensor) -> Tensor:
    """Return the raw logits and log-probabilities of a few labels, float32 [2, n]."""
    if model.block == model.vocabulary:
        (logits,) = model.project(states)  # [n, V]
        logit = logits.gather(-1, labels[:, None].to(logits.device))[:, 0]
        return torch.stack([logit, logit - logits.logsumexp(-1)])
    own = labels // model.block
    # Each block's results are written here: allocated one by one, they would fragment the memory that blocks reuse.
    found, totals = torch.empty(2, -(-model.vocabulary // model.block), len(labels), device=states.device)
    for i, logits in enumerate(model.project(states)):  # [n, block]
        # For a label of another block, this reads some logit, which is not used.
        place = (labels - i * model.block).clamp(0, logits.shape[1] - 1).to(logits.device)
        found[i] = logits.gather(-1, place[:, None])[:, 0]
        totals[i] = logits.logsumexp(-1)
    logit = found.gather(0, own[None])[0]
    return torch.stack([logit, logit - totals.logsumexp(0)])


def split_scores(both: Tensor, counts: Sequence[int]) -> list[LabelScores]:
    """Read :func:`project_labels`'s result from the device, which waits for it, and split it into rows' scores."""
    logit, logprob = both.cpu().numpy()
    splits = np.cumsum(counts)[:-1]
    return [LabelScores(*pair) for pair in zip(np.split(logit, splits), np.split(logprob, splits), strict=True)]
