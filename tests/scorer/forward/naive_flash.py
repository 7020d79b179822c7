"""Flash attention of variable lengths, written out: torch's kernel runs on CUDA only."""

from __future__ import annotations

import torch
from torch import Tensor

from scorer.forward.attention.varlen import Lengths


def naive_flash(
    query: Tensor, key: Tensor, value: Tensor, lengths: Lengths, scale: float | None, causal: bool
) -> tuple[Tensor, Tensor]:
    """Attend a sequence at a time; see :func:`scorer.forward.attention.varlen.flash`."""
    assert (lengths.queries.diff().max(), lengths.keys.diff().max()) == (lengths.most_queries, lengths.most_keys)
    assert (lengths.queries[-1], lengths.keys[-1]) == (len(query), len(key))
    outs, totals = [], []
    for i in range(len(lengths.queries) - 1):
        q = query[lengths.queries[i] : lengths.queries[i + 1]]
        k, v = (
            one[lengths.keys[i] : lengths.keys[i + 1]].repeat_interleave(q.shape[1] // key.shape[1], dim=1)
            for one in (key, value)
        )
        scores = torch.einsum("qhd,khd->hqk", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
        if causal:
            scores = scores.masked_fill(~torch.ones(scores.shape[1:], dtype=torch.bool).tril(), float("-inf"))
        outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v))
        totals.append(scores.logsumexp(-1).T)
    return torch.cat(outs), torch.cat(totals)
