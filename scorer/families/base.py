"""The record of what differs between model families; each family's own is in a file beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from scorer.contrasts import CONTRASTS, Capability
from scorer.types import Int64Array, PixelArray, Turn

TokenInputs = Callable[[Int64Array, int, int], dict[str, Int64Array]]
"""(input ids [T], position of the first label, image token id) → further per-token inputs [T] of a full forward."""


SampleInputs = Callable[[Any, Sequence[Turn], Int64Array, Mapping[str, PixelArray]], dict[str, npt.NDArray[Any]]]
"""(processor, turns, input ids [T], pixels) → further inputs of one sample, each with a leading axis of 1."""


def no_sample_inputs(
    processor: Any, turns: Sequence[Turn], ids: Int64Array, pixels: Mapping[str, PixelArray]
) -> dict[str, npt.NDArray[Any]]:
    """Nothing beside the pixels."""
    return {}


def image_token_id(config: Any) -> int:
    """Id of the placeholder that an image's features take the place of; -1, which no token has, where there is none."""
    found = getattr(config, "image_token_id", None)
    if found is None:
        found = getattr(config, "image_token_index", None)
    return -1 if found is None else int(found)


def no_token_inputs(ids: Int64Array, first_label: int, image_token_id: int) -> dict[str, Int64Array]:
    """Nothing beside ids, mask and positions."""
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What the engine must know about one family.

    Attributes:
        pixel_names: the image processor's outputs that the model takes, where the processor makes them; None for all
            that the processor hands on.
        joint_images: the image processor treats several images of one sample otherwise than a single one, so it is
            given them together, as a list of their own: [[a, b]].
        min_image_tokens: fewest placeholder tokens of an image that the class can take.
        token_inputs: further per-token inputs of a full forward (token types). Continuations of a cached prefix get
            none.
        rope_index: positions are those of ``model.model.get_rope_index``, int64 [3, T] (multimodal rotary embedding).
        first_position: position of the first token.
        softcap: the logit soft-cap that the *class* applies, from its configuration; None for none.
        image_axis: axis of the pixels along which one sample's images are joined. Samples are joined along axis 0.
        zero_is_padding: the model takes a tile of zeros for padding and drops it.
        whole_prefix: tokens before the first label see each other in both directions, so a prefix ends there and
            nowhere earlier.
        template: Jinja template of the prompt where the processor writes it in code. It takes the place of a chat
            template and writes BOS itself.
        processor: name of transformers' processor class that is used in place of the model's own, which wants a
            package for videos only.
        template_without_chat: Jinja template for a model that has no chat template; it writes BOS itself too.
        image_text: (processor) → the text that stands for an image, where the processor writes it in its call only.
        bos_behind_images: image placeholders begin the prompt, and BOS follows them.
        text_apart: the scored text is tokenized apart from the prompt, being an argument of its own.
        several_images: a sample may hold more than one image.
        sample_inputs: see :data:`SampleInputs`. Joined over a batch like pixels, and part of their digest.
        base: (model) → what gives hidden states, given the same arguments.
        refusal: (configuration) → why a model of this family cannot be scored, or None.
        text_only: there is no image; the contrast's scores alone are computed, on the text.
        class_forward: positions and logits are left to the class, and all logits are held; its head is not known.
        batched: several rows share a forward pass.
        unpadded: pixels that must not be padded, because the class lets text see the padding: only rows whose arrays
            have equal shapes share a forward pass.
        capabilities: what is known to work, which decides the contrasts.
        fast: whether cached prefixes and text-only passes are verified; else two full forwards.
    """

    pixel_names: tuple[str, ...] | None = ("pixel_values",)
    joint_images: bool = False
    min_image_tokens: int = 0
    token_inputs: TokenInputs = no_token_inputs
    rope_index: bool = False
    first_position: int = 0
    softcap: Callable[[Any], float | None] = lambda config: None
    image_axis: int = 0
    zero_is_padding: bool = False
    whole_prefix: bool = False
    template: str | None = None
    processor: str | None = None
    template_without_chat: str | None = None
    image_text: Callable[[Any], str] | None = None
    bos_behind_images: bool = False
    text_apart: bool = False
    several_images: bool = True
    sample_inputs: SampleInputs = no_sample_inputs
    base: Callable[[Any], Callable[..., Any]] = lambda model: model.model
    refusal: Callable[[Any], str | None] = lambda config: None
    text_only: bool = False
    class_forward: bool = False
    batched: bool = True
    unpadded: tuple[str, ...] = ()
    capabilities: frozenset[Capability] = frozenset(Capability)
    fast: bool = True

    @property
    def contrasts(self) -> tuple[str, ...]:
        """Names of the contrasts that are defined."""
        return tuple(name for name, contrast in CONTRASTS.items() if contrast.needs <= self.capabilities)
