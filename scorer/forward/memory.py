"""Say how much may wait in memory, and recognise when memory has run out."""

from __future__ import annotations

from typing import Final

import torch

HELD_BYTES: Final = 256 * 2**20
"""Bytes of images that may wait for a batch; more would let more rows share an image, and take more memory."""

STATES_BYTES: Final = 256 * 2**20
"""Bytes of states that may wait in host memory for the other branch of their pair."""


def is_out_of_memory(error: Exception) -> bool:
    """Recognise CUDA's error, and the CPU allocator's, which has no dedicated type."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
