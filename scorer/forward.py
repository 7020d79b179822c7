"""Forward passes of the reference model: labels' logits and log-probabilities, clean and contrast.

This file holds the correct, plain way: two full forward passes per batch. Faster ways belong here too, beside it, and
are tested against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from scorer.types import Branch, EncodedSample, Float32Array

_LOGITS_CHUNK: Final = 2**24
"""Logits held at once, elements: rows of the vocabulary projection are computed in chunks of this size (64 MiB)."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelScores:
    """float32 [N] each: the labels' raw logits and natural-log probabilities in one branch."""

    logit: Float32Array
    logprob: Float32Array


@torch.inference_mode()
def score_two_forwards(model: Any, rows: Sequence[EncodedSample]) -> list[tuple[LabelScores, LabelScores]]:
    """Clean and contrast scores of a batch by one full forward pass each; the reference for every faster path."""
    clean = score_branches(model, [row.clean for row in rows])
    contrast = score_branches(model, [row.contrast for row in rows])
    return list(zip(clean, contrast, strict=True))


def score_branches(model: Any, branches: Sequence[Branch]) -> list[LabelScores]:
    """One padded forward pass over a batch of branches.

    Only label positions reach the vocabulary projection.

        position      0        1          2      3
        input_ids     <user>   …          A      kite      label_index = [2, 3]
        hidden[p]     predicts input_ids[p + 1]            so labels read hidden[label_index - 1]
    """
    hidden = _hidden_states(model, branches)  # [B, T, D]
    counts = [len(branch.label_index) for branch in branches]
    row_of = np.repeat(np.arange(len(branches)), counts)  # [N_all]
    position = np.concatenate([branch.label_index for branch in branches]) - 1  # [N_all]
    labels = np.concatenate([branch.input_ids[branch.label_index] for branch in branches])  # [N_all]
    device = hidden.device
    selected = hidden[torch.from_numpy(row_of).to(device), torch.from_numpy(position).to(device)]  # [N_all, D]
    logit, logprob = label_scores(model.get_output_embeddings(), selected, torch.from_numpy(labels).to(device))
    splits = np.cumsum(counts)[:-1]
    return [
        LabelScores(one_logit, one_logprob)
        for one_logit, one_logprob in zip(np.split(logit, splits), np.split(logprob, splits), strict=True)
    ]


def label_scores(lm_head: Any, hidden: Tensor, labels: Tensor) -> tuple[Float32Array, Float32Array]:
    """Raw logit and log-probability of each label, the vocabulary projected a chunk of rows at a time.

    Naive form::

        logits = lm_head(hidden).float();  logit = logits[i, labels[i]];  logprob = log_softmax(logits)[i, labels[i]]

    Args:
        lm_head: maps [n, D] to [n, V].
        hidden: [N, D], the state that predicts each label.
        labels: int64 [N].

    Returns:
        two float32 arrays [N].
    """
    vocabulary = lm_head.weight.shape[0]
    rows = max(1, _LOGITS_CHUNK // vocabulary)
    logit, logprob = [], []
    for h, y in zip(torch.split(hidden, rows), torch.split(labels, rows), strict=True):
        logits = lm_head(h).float()  # [rows, V]
        label_logit = logits.gather(-1, y[:, None])[:, 0]
        logit.append(label_logit)
        logprob.append(label_logit - logits.logsumexp(-1))
    return torch.cat(logit).cpu().numpy(), torch.cat(logprob).cpu().numpy()


def _hidden_states(model: Any, branches: Sequence[Branch]) -> Tensor:
    """Last hidden states [B, T, D] of right-padded branches."""
    device = model.get_input_embeddings().weight.device
    length = max(len(branch.input_ids) for branch in branches)

    def pad(arrays: Sequence[Any], value: int) -> Tensor:
        padded = np.full((len(arrays), length), value, dtype=np.int64)
        for row, array in zip(padded, arrays, strict=True):
            row[: len(array)] = array
        return torch.from_numpy(padded).to(device)  # [B, T]

    # Any ordinary token serves as padding, since no real position attends to it.
    ids = pad([branch.input_ids for branch in branches], _padding_id(branches))
    pixels = {
        name: torch.from_numpy(np.concatenate([branch.pixels[name] for branch in branches])).to(device, model.dtype)
        for name in branches[0].pixels
    }
    outputs = model.model(
        input_ids=ids,
        attention_mask=pad([branch.attend for branch in branches], 0),
        position_ids=pad([branch.position_ids for branch in branches], 0),
        use_cache=False,
        **pixels,
    )
    return outputs.last_hidden_state  # type: ignore[no-any-return]


def _padding_id(branches: Sequence[Branch]) -> int:
    """A label's id: a scored token, so never an image placeholder, which would ask for an image."""
    return int(branches[0].input_ids[branches[0].label_index[0]])
