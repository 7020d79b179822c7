"""Find how many tokens a forward pass may hold on this device, by running one."""

from __future__ import annotations

import logging
from typing import Final

import numpy as np
import torch

from scorer.contrasts import Capability
from scorer.forward import ReferenceModel

logger = logging.getLogger(__name__)

DEFAULT_TOKENS: Final = 8192
"""The budget without a trial: on a CPU, and for models that cannot run on text alone."""
SMALLEST: Final = 1024
LARGEST: Final = 32_768
"""The upper bound when memory is plentiful."""
HEADROOM: Final = 0.5
"""The share of free memory that text-only activations may take; the vision tower, prefixes and fragmentation need the
rest."""

_PROBE_TOKENS: Final = 2048


def batch_tokens(model: ReferenceModel, context_length: int) -> int:
    """Return the budget of one padded forward pass, in tokens, that ``max_batch_tokens=None`` stands for.

    It depends on memory rather than time and is rounded down to a power of two, so that equal devices agree and a
    resumed run forms the same batches. If a batch still does not fit, the budget is halved
    (:mod:`scorer.forward.batching`).
    """
    if model.device.type != "cuda" or Capability.TEXT_ALONE not in model.family.capabilities:
        return DEFAULT_TOKENS
    free, _ = torch.cuda.mem_get_info(model.device)
    tokens = fitting_tokens(free, bytes_per_token(model, min(_PROBE_TOKENS, context_length)))
    logger.info("batches of at most %d tokens fit %.1f GiB of free device memory", tokens, free / 2**30)
    return tokens


def bytes_per_token(model: ReferenceModel, tokens: int) -> float:
    """Return the peak device memory of a pass over ``tokens`` text tokens, in bytes per token."""
    ids = np.zeros(tokens, dtype=np.int64)
    axes = 3 if model.family.rope_index else 1
    positions = np.tile(np.arange(tokens, dtype=np.int64), (axes, 1))
    torch.cuda.synchronize(model.device)
    torch.cuda.reset_peak_memory_stats(model.device)
    before = torch.cuda.memory_allocated(model.device)
    with torch.inference_mode():
        model.hidden([ids], [positions], [np.ones(tokens, dtype=np.bool_)])
    torch.cuda.synchronize(model.device)
    return (torch.cuda.max_memory_allocated(model.device) - before) / tokens


def fitting_tokens(free_bytes: int, per_token: float) -> int:
    """Return the largest power of two that fits in ``HEADROOM`` of ``free_bytes``, from ``SMALLEST`` to ``LARGEST``."""
    fitting = int(HEADROOM * free_bytes / max(per_token, 1.0))
    return min(LARGEST, max(SMALLEST, 1 << max(0, fitting.bit_length() - 1)))
