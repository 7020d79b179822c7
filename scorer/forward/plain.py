"""Score on the plain path: one full forward pass per branch, simple enough to check the fast path against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scorer.forward.labels import (
    LABELS_ALONE,
    LabelScores,
    Quantities,
    labels_of,
    project_labels,
    split_scores,
    undefined_scores,
    with_pair,
    without_pair,
)
from scorer.forward.model import ForwardRow, ReferenceModel
from scorer.forward.pairs import States, divergences, split_divergences, states_of
from scorer.types import Branch, EncodedSample


@torch.inference_mode()
def score_full_forwards(
    model: ReferenceModel, rows: Sequence[EncodedSample], quantities: Quantities = LABELS_ALONE
) -> list[tuple[LabelScores, ...]]:
    """Return the scores of each row's branches, by one full, uncompiled forward pass per branch.

    The order is that of :attr:`EncodedSample.branches`, and the rows have equally many.
    """
    if not model.family.batched and len(rows) > 1:
        return [scores for row in rows for scores in score_full_forwards(model, [row], quantities)]
    joint = quantities.joint
    clean, *contrasts = zip(*(row.branches for row in rows), strict=True)
    with model.eager():
        if model.family.text_only:
            alone = [_one_forward(model, branches, quantities.own)[0] for branches in contrasts]
            scores = [[without_pair(one, joint) for one in found] for found in alone]
            return list(zip([undefined_scores(len(one.logit), quantities) for one in alone[0]], *scores, strict=True))
        first, clean_states = _one_forward(model, clean, quantities.own, keep=bool(joint))
        scores = [first]
        for branches in contrasts:
            found, states = _one_forward(model, branches, quantities.own, keep=bool(joint))
            if joint:
                pairs = list(zip(clean_states, states, strict=True))
                between = divergences(model, pairs, joint, states[0].hidden.device)
                split = split_divergences(between, [len(one.logit) for one in found], joint)
                found = [with_pair(one, values) for one, values in zip(found, split, strict=True)]
            scores.append(found)
    return list(zip(*scores, strict=True))


@torch.inference_mode()
def score_text(
    model: ReferenceModel, rows: Sequence[EncodedSample], quantities: Quantities = LABELS_ALONE
) -> list[LabelScores]:
    """Return the scores of each text-only row, by one full, uncompiled forward pass over its text."""
    if not model.family.batched and len(rows) > 1:
        return [scores for row in rows for scores in score_text(model, [row], quantities)]
    with model.eager():
        scores, _ = _one_forward(model, [row.contrast for row in rows], quantities.own)
    return [without_pair(one, quantities.joint) for one in scores]


def _one_forward(
    model: ReferenceModel, branches: Sequence[Branch], own: Sequence[str], keep: bool = False
) -> tuple[list[LabelScores], list[States]]:
    """Return the scores of branches, and the states before their labels if asked to keep them."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, branch in enumerate(branches):
        groups.setdefault(tuple(branch.pixels[name].shape[1:] for name in model.family.unpadded), []).append(i)
    scores: dict[int, LabelScores] = {}
    states: dict[int, States] = {}
    for members in groups.values():
        prepared = [model.prepare(branches[i]) for i in members]
        counts = [len(row.label_index) for row in prepared]
        hidden = torch.cat(full_forward(model, prepared))
        found = project_labels(model, hidden, labels_of(prepared).to(hidden.device), own)
        scores.update(zip(members, split_scores(found, counts, own), strict=True))
        if keep:
            states.update(zip(members, states_of(hidden, found, counts), strict=True))
    return [scores[i] for i in range(len(branches))], [states[i] for i in range(len(states))]


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
