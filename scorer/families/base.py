"""The record of what differs between model families; each family's own is in a file beside this one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from scorer.types import Int64Array

ALL_CONTRASTS: Final = frozenset({"blank", "masked", "removed", "blur", "noise", "image"})

TokenInputs = Callable[[Int64Array, int, int], dict[str, Int64Array]]
"""(input ids [T], position of the first label, image token id) → further per-token inputs [T] of a full forward."""


def no_token_inputs(ids: Int64Array, first_label: int, image_token_id: int) -> dict[str, Int64Array]:
    """Nothing beside ids, mask and positions."""
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What the engine must know about one family.

    Attributes:
        pixel_names: the image processor's outputs that the model takes.
        token_inputs: further per-token inputs of a full forward (token types). Continuations of a cached prefix get
            none.
        rope_index: positions are those of ``model.model.get_rope_index``, int64 [3, T] (multimodal rotary embedding).
        first_position: position of the first token.
        softcap: the logit soft-cap that the *class* applies, from its configuration; None for none.
        contrasts: contrasts that are defined and verified.
        fast: whether cached prefixes and text-only passes are verified; else two full forwards.
    """

    pixel_names: tuple[str, ...] = ("pixel_values",)
    token_inputs: TokenInputs = no_token_inputs
    rope_index: bool = False
    first_position: int = 0
    softcap: Callable[[Any], float | None] = lambda config: None
    contrasts: frozenset[str] = ALL_CONTRASTS
    fast: bool = True
