"""``torch.compile`` of the decoder, a block at a time.

A decoder's blocks share their code, so that one compilation serves them all: seconds, where the whole model takes
minutes and breaks apart at every Python decision of its forward. The picture's tower stays as it is: transformers'
hooks for its hidden states would break each of its blocks into pieces.
"""

from __future__ import annotations

from typing import Any, Final

from transformers.modeling_layers import GradientCheckpointingLayer

from scorer.errors import ModelError

BACKEND: Final = "inductor"


def compile_decoder(model: Any) -> None:
    """Have the decoder's blocks of a transformers model compiled, in place, at their first call.

    Raises:
        ModelError: the decoder has no blocks that transformers marks as repeated.
    """
    decoder = model.get_decoder()
    blocks = [module for module in decoder.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks:
        raise ModelError(f"{type(decoder).__name__} has no repeated blocks to compile; leave compile (--compile) off")
    for block in blocks:
        # Lengths differ from batch to batch; without `dynamic` the second one would compile anew.
        block.compile(dynamic=True, backend=BACKEND)
