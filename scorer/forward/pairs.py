"""Compare the distributions that two branches predict: Kullback–Leibler and Jensen–Shannon divergences, by chunks.

Neither branch's logits are kept: its states are, and both are projected again, together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from scorer.forward import labels
from scorer.forward.labels import JS, KL, KL_REVERSE
from scorer.forward.model import ReferenceModel
from scorer.types import Float32Array

Item = tuple[int, int]
"""A row's number, and the number of one of its branches (:attr:`scorer.types.EncodedSample.branches`)."""
CLEAN: Final = 0
"""The number of the clean branch."""
CONTRAST: Final = 1
"""The number of the first contrast's branch; those of further contrasts follow."""

MOST_LOGIT: Final = 2.0**15
"""From this size on, a label's logit less its log-probability keeps no digits of the log-sum-exp that matter: a class
that masks tokens may give one the lowest number of its dtype."""

_MOST: Final = {JS: math.log(2)}
"""The greatest value that a divergence can have, where there is one."""
_SHARE: Final = 3
"""Of a pair, six vocabulary-sized tensors are held at once; of a label of one branch, two."""


@dataclass(eq=False, slots=True)
class States:
    """What is kept of one branch of a row until the other is there.

    Attributes:
        hidden: [N, D], the states that predict the labels, or their logits [N, V] for ``class_forward``.
        totals: float32 [N], the log-sum-exp of their logits.
    """

    hidden: Tensor
    totals: Tensor

    def to_host(self) -> None:
        """Move them to host memory, into a place of their own; this waits for the device."""
        self.hidden, self.totals = (one.to("cpu", copy=True) for one in (self.hidden, self.totals))


def states_of(hidden: Tensor, scores: Tensor, counts: Sequence[int]) -> list[States]:
    """Split a batch's states [N, D], and its scores as :func:`scorer.forward.labels.project_labels` returns them.

    A label whose logit is no usual one has an undefined log-sum-exp, and so undefined divergences: see
    :data:`MOST_LOGIT`.
    """
    totals = torch.where(scores[0].abs() < MOST_LOGIT, scores[0] - scores[1], math.nan)
    parts = zip(torch.split(hidden, list(counts)), torch.split(totals, list(counts)), strict=True)
    return [States(*one) for one in parts]


Pair = tuple[States, States]
"""The clean branch's states and a contrast's."""


@torch.inference_mode()
def divergences(model: ReferenceModel, pairs: Sequence[Pair], joint: Sequence[str], device: torch.device) -> Tensor:
    """Return the divergences between the clean branch and a contrast, float32 [k, N] for N labels in all, in nats.

    With p and q, the probabilities of all tokens in the clean branch and in the contrast, and m = (p + q) / 2::

        kl = Σ p·(log p − log q) − p + q;  kl_reverse = Σ q·(log q − log p) − q + p
        js = Σ p·log(p / m) / 2 + q·log(q / m) / 2

    Σ q − p is 0; with it, no token's term is negative, and errors of log-sum-exps enter only to second order. A token
    that neither branch allows, with a logit of −∞ in both, adds nothing. What rounding leaves below 0 is set to 0, and
    what it leaves of js above ln 2, to ln 2.

    Args:
        pairs: one for each row.
        joint: see :attr:`scorer.forward.labels.Quantities.joint`.
        device: where they are computed.
    """
    chunk = max(1, labels.LOGITS_CHUNK // (_SHARE * model.projection_width))
    sides = [_joined(side, device) for side in zip(*pairs, strict=True)]
    (clean, clean_totals), (contrast, contrast_totals) = ([torch.split(part, chunk) for part in side] for side in sides)
    found = [
        _chunk(model, torch.cat([p, q]), torch.cat([p_total, q_total]), joint)
        for p, q, p_total, q_total in zip(clean, contrast, clean_totals, contrast_totals, strict=True)
    ]
    return torch.cat(found, dim=1)


def _joined(side: Sequence[States], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the states and the log-sum-exps of several rows end to end."""
    return torch.cat([one.hidden.to(device) for one in side]), torch.cat([one.totals.to(device) for one in side])


def _chunk(model: ReferenceModel, hidden: Tensor, totals: Tensor, joint: Sequence[str]) -> Tensor:
    """Return the divergences [k, n] of n pairs, the clean halves of ``hidden`` [2n, D] and ``totals`` [2n] first."""
    sums = torch.zeros(len(joint), len(totals) // 2, device=totals.device)
    for logits in model.project(hidden):  # [2n, block], nobody else's: changed in place below
        logp, logq = logits.sub_(totals.to(logits.device)[:, None]).chunk(2)
        difference = (logp - logq).nan_to_num_(nan=0.0, posinf=math.inf, neginf=-math.inf)  # −∞ − −∞; p = q = 0 there
        p, q = logp.exp_(), logq.exp_()
        for name, values in zip(joint, sums, strict=True):
            values += _summed(name, p, q, difference).to(values.device)
    return torch.stack([values.clamp(0, _MOST.get(name)) for name, values in zip(joint, sums, strict=True)])


def _summed(name: str, p: Tensor, q: Tensor, difference: Tensor) -> Tensor:
    """Return the sum of a divergence's terms over a block of the vocabulary, [n]; ``difference`` is log p − log q."""
    if name == KL:
        return (p * difference).sub_(p).add_(q).sum(-1)
    if name == KL_REVERSE:
        return (q * difference).neg_().sub_(q).add_(p).sum(-1)
    assert name == JS, name
    # ln(p / m) = ln 2 − ln(1 + q / p)
    first = softplus(-difference).neg_().add_(math.log(2)).mul_(p)
    return first.addcmul_(softplus(difference).neg_().add_(math.log(2)), q).sum(-1).div_(2)


class Waiting:
    """States of rows' branches that wait for the other branch of their pair.

    Args:
        contrasts: the number of contrasts of a row.
    """

    def __init__(self, contrasts: int) -> None:
        self._contrasts = contrasts
        self._clean: dict[int, States] = {}
        self._missing: dict[int, int] = {}
        self._others: dict[Item, States] = {}
        self._new: list[States] = []

    def meet(self, items: Sequence[Item], states: Sequence[States]) -> list[tuple[Item, Pair]]:
        """Take a batch's states; return the contrasts whose pairs are now complete, with the pairs."""
        complete: list[tuple[Item, Pair]] = []
        for (row, branch), one in zip(items, states, strict=True):
            if branch == CLEAN:
                self._clean[row], self._missing[row] = one, self._contrasts
                came_first = [(row, k) for k in range(CONTRAST, CONTRAST + self._contrasts) if (row, k) in self._others]
                complete += [(item, (one, self._others.pop(item))) for item in came_first]
            elif row in self._clean:
                complete.append(((row, branch), (self._clean[row], one)))
            else:
                self._others[row, branch] = one
        for (row, _), _pair in complete:
            self._missing[row] -= 1
            if not self._missing[row]:
                del self._clean[row], self._missing[row]
        self._new += [
            one
            for (row, branch), one in zip(items, states, strict=True)
            if (row in self._clean if branch == CLEAN else (row, branch) in self._others)
        ]
        return complete

    def to_host(self) -> None:
        """Move what waits to host memory."""
        for one in self._new:
            one.to_host()
        self._new.clear()


def split_divergences(found: Tensor, counts: Sequence[int], joint: Sequence[str]) -> list[dict[str, Float32Array]]:
    """Read :func:`divergences`'s result from the device, which waits for it, and split it into rows'."""
    rows = np.split(found.cpu().numpy(), np.cumsum(counts)[:-1], axis=1)
    return [dict(zip(joint, values, strict=True)) for values in rows]
