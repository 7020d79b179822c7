"""Score on the plain path: one full forward pass per branch, simple enough to check the fast path against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scorer.forward.labels import LabelScores, label_scores, undefined_scores
from scorer.forward.model import ForwardRow, ReferenceModel
from scorer.types import Branch, EncodedSample


@torch.inference_mode()
def score_full_forwards(model: ReferenceModel, rows: Sequence[EncodedSample]) -> list[tuple[LabelScores, ...]]:
    """Return the scores of each row's branches, by one full, uncompiled forward pass per branch.

    The order is that of :attr:`EncodedSample.branches`, and the rows have equally many.
    """
    if not model.family.batched and len(rows) > 1:
        return [scores for row in rows for scores in score_full_forwards(model, [row])]
    with model.eager():
        scores = [_one_forward(model, branches) for branches in zip(*(row.branches[1:] for row in rows), strict=True)]
        if model.family.text_only:
            clean = [undefined_scores(len(one.logit)) for one in scores[0]]
        else:
            clean = _one_forward(model, [row.clean for row in rows])
    return list(zip(clean, *scores, strict=True))


@torch.inference_mode()
def score_text(model: ReferenceModel, rows: Sequence[EncodedSample]) -> list[LabelScores]:
    """Return the scores of each text-only row, by one full, uncompiled forward pass over its text."""
    if not model.family.batched and len(rows) > 1:
        return [scores for row in rows for scores in score_text(model, [row])]
    with model.eager():
        return _one_forward(model, [row.contrast for row in rows])


def _one_forward(model: ReferenceModel, branches: Sequence[Branch]) -> list[LabelScores]:
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, branch in enumerate(branches):
        groups.setdefault(tuple(branch.pixels[name].shape[1:] for name in model.family.unpadded), []).append(i)
    scores: dict[int, LabelScores] = {}
    for members in groups.values():
        prepared = [model.prepare(branches[i]) for i in members]
        scores.update(zip(members, label_scores(model, prepared, full_forward(model, prepared)), strict=True))
    return [scores[i] for i in range(len(branches))]


def full_forward(model: ReferenceModel, rows: Sequence[ForwardRow]) -> list[Tensor]:
    """Run one padded forward pass; return, for each row, the states [N_b, D] that predict its labels.

        position      0        1          2      3
        ids           <user>   …          A      kite      label_index = [2, 3]
        hidden[p]     predicts ids[p + 1]                  so labels read hidden[label_index - 1]

    Tokens after the last label's predecessor predict no label, so they are left out.
    """
    ends = [int(row.label_index[-1]) for row in rows]
    hidden = model.hidden(
        ids=[row.ids[:end] for row, end in zip(rows, ends, strict=True)],
        positions=[row.positions[:, :end] for row, end in zip(rows, ends, strict=True)],
        attend=[row.attend[:end] for row, end in zip(rows, ends, strict=True)],
        pixels=[row.pixels for row in rows],
        token_inputs=[{n: v[:end] for n, v in row.token_inputs.items()} for row, end in zip(rows, ends, strict=True)],
    )  # [B, T - 1, D]
    return [
        states[torch.from_numpy(row.label_index - 1).to(states.device)]
        for states, row in zip(hidden, rows, strict=True)
    ]
