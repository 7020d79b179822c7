"""Define the record of what differs between model families; each family has its own file in this folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from scorer.contrasts import CONTRASTS, Capability
from scorer.families.resizing import Resizing, by_size
from scorer.families.targets import Targets, unknown_targets
from scorer.types import Int64Array, PixelArray, Turn

TokenInputs = Callable[[Int64Array, int, int], dict[str, Int64Array]]
"""(input ids [T], position of the first label, image token id) → extra per-token inputs [T] of a full forward pass."""


Blocks = Callable[[Int64Array, int, int], Int64Array]
"""(input ids [T], position of the first label, image token id) → numbers of the blocks of tokens that see each other in
both directions, int64 [T], -1 for a causal token."""


@dataclass(frozen=True, slots=True)
class TowerInputs:
    """What a class computes from its images' grids, by argument name: on the host, and on the device."""

    host: dict[str, npt.NDArray[Any]]
    device: dict[str, npt.NDArray[Any]]


Tower = Callable[[Any, Sequence[Mapping[str, PixelArray]]], TowerInputs]
"""(transformers model, each image's tensors) → inputs that its vision tower would otherwise compute on the device. The
boundaries of its attention's windows, ``…seqlens``, are int32 [n + 1] on the host."""

SampleInputs = Callable[[Any, Sequence[Turn], Int64Array, Mapping[str, PixelArray]], dict[str, npt.NDArray[Any]]]
"""(processor, turns, input ids [T], pixels) → extra inputs of one sample, each with a leading axis of 1."""


ProcessedPixels = Callable[[Resizing], int]
"""(image before its processor) → an upper bound of the pixels that the processor makes of it."""


def no_sample_inputs(
    processor: Any, turns: Sequence[Turn], ids: Int64Array, pixels: Mapping[str, PixelArray]
) -> dict[str, npt.NDArray[Any]]:
    """Return no inputs besides the pixels."""
    return {}


def image_token_id(config: Any) -> int:
    """Return the id of the placeholder that an image's features replace; -1, which no token has, if there is none."""
    found = getattr(config, "image_token_id", None)
    if found is None:
        found = getattr(config, "image_token_index", None)
    return -1 if found is None else int(found)


def no_token_inputs(ids: Int64Array, first_label: int, image_token_id: int) -> dict[str, Int64Array]:
    """Return no inputs besides ids, mask and positions."""
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What the engine must know about one family.

    Attributes:
        pixel_names: the image processor's outputs that the model takes, if the processor returns them; None for all of
            its outputs.
        joint_images: whether the image processor treats several images of one sample differently from a single image,
            so that they must be passed together, as a nested list: [[a, b]].
        processed_pixels: see :data:`ProcessedPixels`; an image that would become too many is refused undecoded.
        targets: see :data:`scorer.families.targets.Targets`; a JPEG is never decoded smaller.
        uniform_blank: whether a blank image is processed to pixels of one value in each channel, and everything else
            follows from the grid that an image of its size gets. Not where the processor pads. It is checked for each
            checkpoint, because some can be told to pad: :mod:`scorer.encoding.blanks`.
        min_image_tokens: the fewest placeholder tokens per image that the model's class can handle.
        token_inputs: extra per-token inputs of a full forward pass (token types); a packed batch gets none.
        rope_index: whether positions come from ``model.model.get_rope_index``, int64 [3, T] (multimodal rotary
            embedding).
        tower: see :data:`Tower`; None for a vision tower that attends to whole images of one size.
        sharing: how processes share the decoder's weights, a style of transformers' tensor parallelism by parameter,
            where the class has no plan of its own; None keeps the class's.
        first_position: the position of the first token.
        softcap: (configuration) → the logit soft-cap that the model's *class* applies; None if it applies none.
        image_axis: the axis of the pixels along which one sample's images are joined. Samples are joined along axis 0.
        zero_is_padding: whether the model treats a tile of zeros as padding and drops it.
        blocks: see :data:`Blocks`; None if every token is causal. It says in numbers what ``token_inputs`` makes the
            class do.
        blocks_ignore_window: whether tokens of one block see each other beyond a sliding window, too.
        whole_prefix: whether tokens before the first label see each other in both directions, so that a prefix can
            only end there.
        template: Jinja template of the prompt, for a processor that builds its prompt in code. It replaces the chat
            template and writes BOS itself.
        processor: name of the transformers processor class to use in place of the model's own, which needs an extra
            package that only videos use.
        template_without_chat: Jinja template for a model that has no chat template.
        image_text: (processor) → the text that represents an image, for a processor that only writes it when called.
        bos_after_images: whether image placeholders begin the prompt and BOS follows them.
        separate_text: whether the scored text is tokenized separately from the prompt, because the model's own
            processor takes it as a separate argument.
        several_images: whether a sample may hold more than one image.
        sample_inputs: see :data:`SampleInputs`. They are joined over a batch like pixels, and part of their digest.
        base: (model) → the callable that returns hidden states for the same arguments.
        refusal: (configuration) → why a model of this family cannot be scored, or None.
        text_only: whether the model takes no images; only contrast scores are then computed, on the text.
        class_forward: whether the class computes positions and logits; all logits are then held in memory, because the
            location of its head is unknown.
        batched: whether several rows share a forward pass.
        unpadded: pixels that must not be padded, because the class lets text see the padding; only rows whose arrays
            have equal shapes then share a forward pass.
        capabilities: what is known to work, which decides the contrasts.
        fast: whether cached prefixes and text-only passes are verified; if not, rows take two full forward passes.
    """

    pixel_names: tuple[str, ...] | None = ("pixel_values",)
    joint_images: bool = False
    processed_pixels: ProcessedPixels = by_size
    targets: Targets = unknown_targets
    uniform_blank: bool = False
    min_image_tokens: int = 0
    token_inputs: TokenInputs = no_token_inputs
    blocks: Blocks | None = None
    blocks_ignore_window: bool = False
    rope_index: bool = False
    tower: Tower | None = None
    sharing: Mapping[str, str] | None = None
    first_position: int = 0
    softcap: Callable[[Any], float | None] = lambda config: None
    image_axis: int = 0
    zero_is_padding: bool = False
    whole_prefix: bool = False
    template: str | None = None
    processor: str | None = None
    template_without_chat: str | None = None
    image_text: Callable[[Any], str] | None = None
    bos_after_images: bool = False
    separate_text: bool = False
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
        """The names of the contrasts that are defined for this family."""
        return tuple(name for name, contrast in CONTRASTS.items() if contrast.needs <= self.capabilities)
