"""Score the obvious way, and well: two forward passes of the model's own class, as a careful script would run them.

Rows are sorted by length and padded in batches up to a token budget. Only positions that predict a label are projected
onto the vocabulary (``logits_to_keep``). Nothing is shared between the two passes, nor between rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorer.encoding.image_processing import join_pixels
from scorer.forward import ReferenceModel
from scorer.types import Branch, EncodedSample

Scores = tuple[Tensor, Tensor, Tensor]
"""A row's scores, float32 [N]: the labels' logit gap, and their log-probabilities, clean and contrast."""


def score(model: ReferenceModel, rows: Sequence[EncodedSample], max_batch_tokens: int) -> list[Scores]:
    """Score rows in batches with rows × longest row ≤ ``max_batch_tokens``; return one result per row, in order."""
    order = sorted(range(len(rows)), key=lambda i: -rows[i].length)
    found: dict[int, Scores] = {}
    while order:
        size = max(1, max_batch_tokens // rows[order[0]].length)
        batch, order = order[:size], order[size:]
        found.update(zip(batch, score_batch(model, [rows[i] for i in batch]), strict=True))
    return [found[i] for i in range(len(rows))]


@torch.inference_mode()
def score_batch(model: ReferenceModel, rows: Sequence[EncodedSample]) -> list[Scores]:
    """Score rows by one padded pass per branch."""
    clean = _labels(model, [row.clean for row in rows])
    contrast = _labels(model, [row.contrast for row in rows])
    return [(c[0] - o[0], c[1], o[1]) for c, o in zip(clean, contrast, strict=True)]


def as_processed(rows: Sequence[EncodedSample]) -> list[EncodedSample]:
    """Return rows with float pixels, as an image processor returns them, so that no timed pass makes them of bytes."""
    floats: dict[bytes, dict[str, Any]] = {}

    def branch(one: Branch) -> Branch:
        if one.pixels_digest not in floats:
            floats[one.pixels_digest] = {name: np.asarray(array) for name, array in one.pixels.items()}
        return replace(one, pixels=floats[one.pixels_digest])

    return [replace(row, clean=branch(row.clean), contrast=branch(row.contrast)) for row in rows]


def _labels(model: ReferenceModel, branches: Sequence[Branch]) -> list[tuple[Tensor, Tensor]]:
    """Return the logits and log-probabilities of each branch's labels from one padded pass."""
    inputs = batch(model, branches)
    keep = torch.zeros(inputs["input_ids"].shape, dtype=torch.bool)  # on the CPU, where its count is known at once
    for b, branch in enumerate(branches):
        keep[b, branch.label_index - 1] = True
    logits = model.model(**inputs, logits_to_keep=keep, use_cache=False).logits  # [N of all rows, V]
    counts = [len(branch.label_index) for branch in branches]
    found = []
    for branch, own in zip(branches, logits.split(counts), strict=True):
        own = own.float()  # [N, V]; a row at a time, so that copies stay small
        labels = torch.from_numpy(branch.input_ids[branch.label_index]).to(own.device)
        label = own.gather(-1, labels[:, None])[:, 0]
        found.append((label, label - own.logsumexp(-1)))
    return found


def batch(model: ReferenceModel, branches: Sequence[Branch]) -> dict[str, Any]:
    """Return the right-padded arguments of the model class's forward pass, without the last token, which predicts none.

    Padding repeats a row's last token, a text token, so that the class expects no image for it.
    """
    length = max(len(branch.input_ids) for branch in branches) - 1
    ids = np.zeros((len(branches), length), dtype=np.int64)
    mask = np.zeros_like(ids)
    for b, branch in enumerate(branches):
        size = min(length, len(branch.input_ids))
        ids[b] = branch.input_ids[-1]
        ids[b, :size] = branch.input_ids[:size]
        mask[b, :size] = branch.attend[:size]
    pixels = join_pixels([branch.pixels for branch in branches])
    arrays = {"input_ids": ids, "attention_mask": mask, **{name: np.asarray(array) for name, array in pixels.items()}}
    for name in model.family.token_inputs(ids[0], 0, model.image_token_id):
        arrays[name] = np.stack([model.family.token_inputs(row, 0, model.image_token_id)[name] for row in ids])
    tensors = {name: torch.from_numpy(array).to(model.device) for name, array in arrays.items()}
    return {n: t.to(model.model.dtype) if t.is_floating_point() else t for n, t in tensors.items()}
