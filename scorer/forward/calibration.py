"""How many tokens a forward pass may hold on this device, found by running one."""

from __future__ import annotations

import logging
from typing import Final

import numpy as np
import torch

from scorer.contrasts import Capability
from scorer.forward import ReferenceModel

logger = logging.getLogger(__name__)

DEFAULT_TOKENS: Final = 8192
"""Where no trial is made: on a CPU, and for models that cannot run text alone."""
SMALLEST: Final = 1024
LARGEST: Final = 32_768
"""A bound where memory is plentiful."""
HEADROOM: Final = 0.5
"""Share of the free memory that text-only activations may take; the vision tower's, prefixes and fragments want the
rest."""

_PROBE_TOKENS: Final = 2048


def batch_tokens(model: ReferenceModel, context_length: int) -> int:
    """The budget of one padded forward pass, tokens: what ``max_batch_tokens=None`` stands for.

    Found from memory and not from a stopwatch, and rounded down to a power of two, so that equal devices agree and
    a run that is resumed forms the same batches. What still does not fit is halved (:mod:`scorer.forward.batching`).
    """
    if model.device.type != "cuda" or Capability.TEXT_ALONE not in model.family.capabilities:
        return DEFAULT_TOKENS
    free, _ = torch.cuda.mem_get_info(model.device)
    tokens = fitting_tokens(free, bytes_per_token(model, min(_PROBE_TOKENS, context_length)))
    logger.info("batches of at most %d tokens fit %.1f GiB of free device memory", tokens, free / 2**30)
    return tokens


def bytes_per_token(model: ReferenceModel, tokens: int) -> float:
    """Device memory that a pass over ``tokens`` text tokens takes at its peak, bytes for each."""
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
    """The largest power of two that ``HEADROOM`` of ``free_bytes`` holds, between ``SMALLEST`` and ``LARGEST``."""
    fitting = int(HEADROOM * free_bytes / max(per_token, 1.0))
    return min(LARGEST, max(SMALLEST, 1 << max(0, fitting.bit_length() - 1)))
