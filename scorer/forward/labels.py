"""Compute the labels' logits and log-probabilities from hidden states, without ever holding all logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from scorer.forward.model import ForwardRow, ReferenceModel
from scorer.types import Float32Array

LOGITS_CHUNK: Final = 2**24
"""The most logits, or converted states, held at once, in elements: rows are projected in chunks (64 MiB)."""


ENTROPY: Final = "entropy"
TOP_LOGIT: Final = "top_logit"
KL: Final = "kl"
KL_REVERSE: Final = "kl_reverse"
JS: Final = "js"


@dataclass(frozen=True, slots=True)
class Quantities:
    """Measures of whole distributions, computed beside the labels' scores.

    Attributes:
        own: those of one branch: its entropy in nats, its greatest logit.
        joint: those of the clean branch and a contrast's: their divergences in nats.
    """

    own: tuple[str, ...] = ()
    joint: tuple[str, ...] = ()

    @classmethod
    def asked_for(cls, asked: Sequence[str]) -> Quantities:
        """Return what :attr:`scorer.config.ScorerConfig.distribution_columns` need."""
        own = {"entropy": ENTROPY, "top1": TOP_LOGIT}
        joint = {"kl": (KL, KL_REVERSE), "js": (JS,)}
        return cls(
            tuple(own[name] for name in asked if name in own),
            tuple(quantity for name in asked for quantity in joint.get(name, ())),
        )


LABELS_ALONE: Final = Quantities()


@dataclass(frozen=True, slots=True, eq=False)
class LabelScores:
    """The labels' raw logits and natural-log probabilities in one branch, float32 [N] each.

    Attributes:
        distribution: what :class:`Quantities` names, float32 [N] each; those of ``joint`` only in a contrast's.
    """

    logit: Float32Array
    logprob: Float32Array
    distribution: Mapping[str, Float32Array] = field(default_factory=dict)


def undefined_scores(count: int, quantities: Quantities = LABELS_ALONE) -> LabelScores:
    """Return NaN scores for a branch that does not exist."""
    names = (*quantities.own, *quantities.joint)
    logit, logprob, *others = (np.full(count, np.nan, dtype=np.float32) for _ in range(2 + len(names)))
    return LabelScores(logit, logprob, dict(zip(names, others, strict=True)))


def with_pair(scores: LabelScores, divergences: Mapping[str, Float32Array]) -> LabelScores:
    """Return a contrast's scores with its divergences from the clean branch."""
    return replace(scores, distribution={**scores.distribution, **divergences})


def without_pair(scores: LabelScores, joint: Sequence[str]) -> LabelScores:
    """Return the scores of a contrast that has no clean branch: its divergences are NaN."""
    return with_pair(scores, {name: np.full_like(scores.logit, np.nan) for name in joint})


def labels_of(rows: Sequence[ForwardRow]) -> Tensor:
    """Return the labels of rows end to end, int64 [N]."""
    return torch.from_numpy(np.concatenate([row.ids[row.label_index] for row in rows]))


def project_labels(model: ReferenceModel, states: Tensor, labels: Tensor, own: Sequence[str] = ()) -> Tensor:
    """Return the raw logits and log-probabilities of labels, then what ``own`` names, float32 [2 + k, N] on the device.

    Logits are computed and dropped a chunk at a time.

    Naive form::

        logits = lm_head(states.float());  logit = logits[i, labels[i]];  logprob = log_softmax(logits)[i, labels[i]]
        entropy = -(softmax(logits) * log_softmax(logits)).sum(-1);  top_logit = logits.amax(-1)

    Args:
        states: [N, D], the states that predict the labels.
        labels: int64 [N].
        own: see :attr:`Quantities.own`.
    """
    chunk = max(1, LOGITS_CHUNK // model.projection_width)
    parts = zip(torch.split(states, chunk), torch.split(labels, chunk), strict=True)
    return torch.cat([_project_chunk(model, h, y, own) for h, y in parts], dim=1)


def _project_chunk(model: ReferenceModel, states: Tensor, labels: Tensor, own: Sequence[str]) -> Tensor:
    """Return what :func:`project_labels` does, of a few labels."""
    if model.block == model.vocabulary:
        (logits,) = model.project(states)  # [n, V]
        logit = logits.gather(-1, labels[:, None].to(logits.device))[:, 0]
        total = logits.logsumexp(-1)
        return torch.stack([logit, logit - total, *(_of_tokens(name, logits, total) for name in own)])
    place_of = labels // model.block
    # Each block's results are written here: allocated one by one, they would fragment the memory that blocks reuse.
    blocks = -(-model.vocabulary // model.block)
    found, totals, *others = torch.empty(2 + len(own), blocks, len(labels), device=states.device)
    for i, logits in enumerate(model.project(states)):  # [n, block]
        # For a label of another block, this reads an arbitrary logit, which is not used.
        place = (labels - i * model.block).clamp(0, logits.shape[1] - 1).to(logits.device)
        found[i] = logits.gather(-1, place[:, None])[:, 0]
        totals[i] = logits.logsumexp(-1)
        for name, values in zip(own, others, strict=True):
            values[i] = _of_tokens(name, logits, totals[i])
    logit = found.gather(0, place_of[None])[0]
    total = totals.logsumexp(0)
    joined = (_of_blocks(name, values, totals - total) for name, values in zip(own, others, strict=True))
    return torch.stack([logit, logit - total, *joined])


def _of_tokens(name: str, logits: Tensor, total: Tensor) -> Tensor:
    """Return a quantity of the distribution over a block of the vocabulary, [n].

    Args:
        logits: [n, W].
        total: [n], their log-sum-exp.
    """
    if name == TOP_LOGIT:
        return logits.amax(-1)
    # Words that are all impossible, with logits of −∞, share nothing: −∞ − −∞ would be NaN.
    total = total.clamp(min=torch.finfo(total.dtype).min)
    shares = (logits - total.to(logits.device)[:, None]).exp_()
    # −p ln p in place: two vocabulary-sized tensors at once, as log-sum-exp has. Its terms cancel nowhere.
    torch.special.entr(shares, out=shares)
    return shares.sum(-1)


def _of_blocks(name: str, values: Tensor, logshares: Tensor) -> Tensor:
    """Return a quantity of the whole vocabulary from those of its blocks, [n].

    Args:
        values: [blocks, n].
        logshares: [blocks, n], the logarithm of each block's probability.
    """
    if name == TOP_LOGIT:
        return values.amax(0)
    shares = logshares.exp()
    which: Tensor = torch.special.entr(shares)
    return (shares * values + which).sum(0)  # which block, and which of its tokens


def split_scores(found: Tensor, counts: Sequence[int], own: Sequence[str] = ()) -> list[LabelScores]:
    """Read :func:`project_labels`'s result from the device, which waits for it, and split it into rows' scores."""
    rows = np.split(found.cpu().numpy(), np.cumsum(counts)[:-1], axis=1)
    return [LabelScores(logit, logprob, dict(zip(own, others, strict=True))) for logit, logprob, *others in rows]
