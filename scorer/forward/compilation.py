"""Compile the decoder with ``torch.compile``, one block at a time.

A decoder's blocks share their code, so one compilation serves them all. It takes seconds, whereas the whole model
takes minutes and breaks into pieces at every Python branch of its forward pass. The vision tower is not compiled:
transformers' hooks for its hidden states would break each of its blocks into pieces.
"""

from __future__ import annotations

from typing import Any, Final

from transformers.modeling_layers import GradientCheckpointingLayer

from scorer.errors import ModelError

BACKEND: Final = "inductor"


def compile_decoder(model: Any) -> None:
    """Compile the decoder blocks of a transformers model in place; they are compiled on first call.

    Raises:
        ModelError: the decoder has no blocks that transformers marks as repeated.
    """
    decoder = model.get_decoder()
    blocks = [module for module in decoder.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks:
        raise ModelError(f"{type(decoder).__name__} has no repeated blocks to compile; leave compile (--compile) off")
    for block in blocks:
        # Lengths differ between batches; without `dynamic` the second length would trigger a recompilation.
        block.compile(dynamic=True, backend=BACKEND)
