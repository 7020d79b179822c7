"""Score the obvious way: run the model class's own forward pass twice, with a softmax over all logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorer.encoding.image_processing import join_pixels
from scorer.forward import ReferenceModel
from scorer.types import Branch, EncodedSample


@torch.inference_mode()
def score(model: ReferenceModel, rows: Sequence[EncodedSample]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return for each row, float32 [N]: the labels' logit gap, and their log-probabilities in both branches."""
    clean = _labels(model, [row.clean for row in rows])
    contrast = _labels(model, [row.contrast for row in rows])
    return [(c[0] - o[0], c[1], o[1]) for c, o in zip(clean, contrast, strict=True)]


def _labels(model: ReferenceModel, branches: Sequence[Branch]) -> list[tuple[Tensor, Tensor]]:
    """Return the logits and log-probabilities of each branch's labels from one padded pass."""
    inputs = batch(model, branches)
    logits = model.model(**inputs).logits.float()  # [B, T, V]
    logprobs = logits.log_softmax(-1)  # [B, T, V]
    found = []
    for b, branch in enumerate(branches):
        labels = inputs["input_ids"][b, branch.label_index]
        at = torch.from_numpy(branch.label_index - 1).to(logits.device)
        found.append((logits[b, at, labels], logprobs[b, at, labels]))
    return found


def batch(model: ReferenceModel, branches: Sequence[Branch]) -> dict[str, Any]:
    """Return the right-padded arguments of the model class's forward pass."""
    length = max(len(branch.input_ids) for branch in branches)
    ids = np.zeros((len(branches), length), dtype=np.int64)
    mask = np.zeros_like(ids)
    for b, branch in enumerate(branches):
        ids[b, : len(branch.input_ids)] = branch.input_ids
        mask[b, : len(branch.input_ids)] = branch.attend
    pixels = join_pixels([branch.pixels for branch in branches])
    arrays = {"input_ids": ids, "attention_mask": mask, **{name: np.asarray(array) for name, array in pixels.items()}}
    for name in model.family.token_inputs(ids[0], 0, model.image_token_id):
        arrays[name] = np.stack([model.family.token_inputs(row, 0, model.image_token_id)[name] for row in ids])
    tensors = {name: torch.from_numpy(array).to(model.device) for name, array in arrays.items()}
    return {n: t.to(model.model.dtype) if t.is_floating_point() else t for n, t in tensors.items()}
