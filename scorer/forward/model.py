"""Wrap the loaded reference model in one small interface: inputs in, hidden states out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorer.families import Family
from scorer.families.base import TowerInputs, image_token_id
from scorer.forward.attention import BatchAttention, packed_attention
from scorer.forward.compilation import compile_decoder
from scorer.forward.head import Head
from scorer.forward.staging import pixels_to_device, to_device
from scorer.types import BoolArray, Branch, Int64Array, PixelArray, Usage


@dataclass(frozen=True, slots=True, eq=False)
class ForwardRow:
    """One row of a forward pass.

    Attributes:
        ids: int64 [T].
        positions: int64 [A, T]; A is 1, or 3 for multimodal rotary embeddings.
        attend: bool [T]; False hides a position from attention.
        label_index: int64 [N], positions of the labels in ``ids``, ascending.
        pixels: image tensors by argument name; empty if the row has no images.
        pixels_digest: identifies ``pixels``.
        token_inputs: extra per-token inputs of a full forward pass, int64 [T] each.
        places: int64 [T], each token's place in the row before hidden tokens were taken out.
        blocks: int64 [T], numbers of the blocks of tokens that see each other in both directions, -1 for a causal
            token; None if all are causal.
    """

    ids: Int64Array
    positions: Int64Array
    attend: BoolArray
    label_index: Int64Array
    pixels: Mapping[str, PixelArray]
    pixels_digest: bytes
    token_inputs: Mapping[str, Int64Array]
    places: Int64Array
    blocks: Int64Array | None


class ReferenceModel:
    """A frozen model and its family's record.

    Attributes:
        model: the transformers model with its vocabulary projection.
        family: the record of what differs for its family.
        image_token_id: the id of the placeholder that an image's features replace.
        sliding_window: the number of tokens that a local-attention layer sees; None if every layer sees all.
        usage: the tokens run so far.
    """

    def __init__(self, model: Any, family: Family, compiled: bool = False) -> None:
        self.model = model
        self.family = family
        self._base = model if family.class_forward else family.base(model)
        self._compiled = compiled
        if compiled:
            compile_decoder(model)
        self.image_token_id = image_token_id(model.config)
        self.sliding_window = _sliding_window(model.config.get_text_config())
        self._head = Head(model.get_output_embeddings())
        self._softcap = family.softcap(model.config)
        self.usage = Usage()
        self._towers = _configurations(model.model.visual) if family.tower is not None else []
        self._text = _text_configurations(model) if family.fast else []

    @property
    def device(self) -> torch.device:
        """The device that inputs go to."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    def eager(self) -> AbstractContextManager[Any]:
        """Return a context manager in which the model runs uncompiled."""
        return torch.compiler.set_stance("force_eager") if self._compiled else nullcontext()

    def prepare(self, branch: Branch) -> ForwardRow:
        """Return a branch with its positions and extra token inputs."""
        return ForwardRow(
            ids=branch.input_ids,
            positions=self._positions(branch),
            attend=branch.attend,
            label_index=branch.label_index,
            pixels=branch.pixels,
            pixels_digest=branch.pixels_digest,
            token_inputs=self._token_inputs(branch.input_ids, branch.label_index),
            places=np.arange(len(branch.input_ids)),
            blocks=self._blocks(branch.input_ids, branch.label_index),
        )

    def text_only(self, row: ForwardRow) -> ForwardRow:
        """Return the row without its hidden tokens; every other token keeps its position."""
        keep = row.attend
        ids = row.ids[keep]
        label_index = (np.cumsum(keep) - 1)[row.label_index]
        return ForwardRow(
            ids=ids,
            positions=row.positions[:, keep],
            attend=np.ones(len(ids), dtype=np.bool_),
            label_index=label_index,
            pixels={},
            pixels_digest=b"",
            token_inputs=self._token_inputs(ids, label_index),
            places=np.flatnonzero(keep),
            blocks=self._blocks(ids, label_index),
        )

    def _blocks(self, ids: Int64Array, label_index: Int64Array) -> Int64Array | None:
        blocks = self.family.blocks
        return None if blocks is None else blocks(ids, int(label_index[0]), self.image_token_id)

    def _token_inputs(self, ids: Int64Array, label_index: Int64Array) -> dict[str, Int64Array]:
        return self.family.token_inputs(ids, int(label_index[0]), self.image_token_id)

    def _positions(self, branch: Branch) -> Int64Array:
        """Return positions, int64 [1, T], or [3, T] for multimodal rotary embeddings."""
        length = len(branch.input_ids)
        if not self.family.rope_index:
            return self.family.first_position + np.arange(length, dtype=np.int64)[None]
        if not branch.pixels:
            return np.tile(np.arange(length, dtype=np.int64), (3, 1))
        # No mask here: it would renumber the tokens after a hidden image.
        tokens = self._token_inputs(branch.input_ids, branch.label_index)
        # On the host: on a device, each row would wait for it many times.
        types = {name: torch.from_numpy(values[None]) for name, values in tokens.items()}
        grids = {n: torch.from_numpy(np.asarray(p)) for n, p in branch.pixels.items() if n.endswith("grid_thw")}
        positions, _ = self.model.model.get_rope_index(torch.from_numpy(branch.input_ids[None]), **types, **grids)
        return np.asarray(positions[:, 0].numpy(), dtype=np.int64)  # of [3, 1, T]

    def hidden(
        self,
        ids: Sequence[Int64Array],
        positions: Sequence[Int64Array],
        attend: Sequence[Any],
        pixels: Sequence[Mapping[str, PixelArray]] = (),
        token_inputs: Sequence[Mapping[str, Int64Array]] = (),
    ) -> Tensor:
        """Return last hidden states [B, T, D] of right-padded rows, or logits [B, T, V] for ``class_forward``.

        Args:
            ids: B rows of [T_b].
            positions: B rows of [A, T_b]; A is 1 or 3.
            attend: B rows of [T_b]; whether a position may be attended to.
            pixels: B rows of image tensors, or empty.
            token_inputs: B rows of extra per-token inputs, or empty.
        """
        self.usage += Usage(sum(map(len, ids)), len(ids) * max(map(len, ids)))
        kwargs: dict[str, Any] = pixels_to_device(pixels, self.device, self.model.dtype)
        for name in token_inputs[0] if token_inputs else {}:
            kwargs[name] = self._pad([row[name] for row in token_inputs], 0)
        place = torch.stack([self._pad([row[axis] for row in positions], 0) for axis in range(len(positions[0]))])
        if not self.family.class_forward:
            kwargs["position_ids"] = place if len(place) > 1 else place[0]
        with self._head.in_float32() if self.family.class_forward else nullcontext():
            # Padding is hidden by the mask, and it is a text token, so that the class expects no image for it.
            outputs = self._base(
                input_ids=self._pad(ids, int(ids[0][-1])),
                attention_mask=self._pad(attend, 0),
                use_cache=False,
                **kwargs,
            )
        states: Tensor = outputs.logits if self.family.class_forward else outputs.last_hidden_state
        return states

    def tower_inputs(self, images: Sequence[Mapping[str, PixelArray]]) -> TowerInputs:
        """Return what the vision tower needs besides the pixels; see :data:`scorer.families.base.Tower`."""
        if self.family.tower is None or not images:
            return TowerInputs({}, {})
        return self.family.tower(self.model, images)

    def packed_hidden(
        self, ids: Tensor, positions: Tensor, images: Mapping[str, Tensor], attention: BatchAttention
    ) -> Tensor:
        """Return last hidden states [N, D] of one packed batch.

        Args:
            ids: int64 [1, N].
            positions: int64 [A, 1, N]; A is 1 or 3.
            images: the tensors of all images in the batch's order, by argument name.
            attention: who attends to whom, and how.
        """
        with packed_attention(self._text, self._towers, attention):
            outputs = self._base(
                input_ids=ids,
                # Without a mask, transformers would look for packed rows in the positions, and wait for the device.
                attention_mask=torch.ones_like(ids),
                position_ids=positions if len(positions) > 1 else positions[0],
                use_cache=False,
                **images,
            )
        states: Tensor = outputs.last_hidden_state[0]
        return states

    def project(self, hidden: Tensor) -> Iterator[Tensor]:
        """Yield float32 logits [n, :attr:`block`] of hidden states [n, D], in vocabulary order; see :class:`Head`.

        They are those of the model's class without its rounding. With ``class_forward``, the states are the logits.
        """
        if self.family.class_forward:
            yield hidden.float()
            return
        for logits in self._head.logits(hidden):
            yield logits if self._softcap is None else _capped(logits, self._softcap)

    @property
    def block(self) -> int:
        """The number of vocabulary entries whose logits :meth:`project` yields at once."""
        return self._head.vocabulary if self.family.class_forward else self._head.block

    @property
    def projection_width(self) -> int:
        """The most float32 values that :meth:`project` holds per state."""
        return self._head.vocabulary if self.family.class_forward else self._head.width

    @property
    def attends_causally(self) -> bool:
        """Whether every token of the decoder attends to itself, to all before it and to nothing else, uncapped."""
        capped = getattr(self.model.config.get_text_config(), "attn_logit_softcapping", None) is not None
        plain = self.family.blocks is None and not self.family.whole_prefix
        return plain and self.sliding_window is None and not capped

    @property
    def head_sizes(self) -> list[int]:
        """The sizes of the attention heads that a packed batch runs: the decoder's, and those of a windowed tower."""
        text = self.model.config.get_text_config()
        sizes = {getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads}
        if self.family.tower is not None:
            vision = self.model.config.vision_config
            sizes.add(vision.hidden_size // vision.num_heads)
        return sorted(sizes)

    @property
    def state_bytes(self) -> int:
        """The bytes of a state that predicts a label, in the model's dtype."""
        return int(self.model.config.get_text_config().hidden_size) * int(self.model.dtype.itemsize)

    @property
    def vocabulary(self) -> int:
        """The number of rows of the vocabulary projection."""
        return self._head.vocabulary

    def _pad(self, rows: Sequence[Any], value: int) -> Tensor:
        """Pad rows on the right with ``value``; return int64 [B, T] on the device."""
        padded = np.full((len(rows), max(len(row) for row in rows)), value, dtype=np.int64)
        for out, row in zip(padded, rows, strict=True):
            out[: len(row)] = row
        return to_device(padded, self.device)


def _text_configurations(model: Any) -> list[Any]:
    return [*_configurations(model.get_decoder()), model.config, model.config.get_text_config()]


def _configurations(module: Any) -> list[Any]:
    """Return the configurations that a module's parts read, each once: transformers copies some of them."""
    found = {}
    for part in module.modules():
        config = getattr(part, "config", None)
        if hasattr(config, "_attn_implementation_internal"):
            found[id(config)] = config
    return list(found.values())


def _capped(logits: Tensor, cap: float) -> Tensor:
    return torch.tanh(logits / cap) * cap


def _sliding_window(text_config: Any) -> int | None:
    window = getattr(text_config, "sliding_window", None)
    kinds = getattr(text_config, "layer_types", None)
    if not window or (kinds is not None and "sliding_attention" not in kinds):
        return None
    if kinds is None and getattr(text_config, "use_sliding_window", True) is False:
        return None
    return int(window)
