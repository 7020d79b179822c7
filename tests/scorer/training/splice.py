"""LLaVA's splice, made again as small as it goes: what its model does to ids, masks and labels before the loss.

Of the placeholder -200 each becomes the image's N features; padding is dropped first; sequences are cut to the context
and padded again on one side; positions of images and padding get the label -100.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM

PLACEHOLDER, IGNORE = -200, -100


class SplicingLlava(LlamaForCausalLM):
    """A language model that takes image features [images, N, width] beside ids with placeholders."""

    def __init__(self, config: LlamaConfig, context: int = 64, side: str = "right") -> None:
        super().__init__(config)
        self.context, self.side = context, side

    def forward(self, input_ids: Any = None, labels: Any = None, images: Any = None, **kwargs: Any) -> Any:
        mask = kwargs.pop("attention_mask", None)
        prepared = self.prepare_inputs_labels_for_multimodal(input_ids, None, mask, None, labels, images)
        _, positions, mask, _, embeds, labels = prepared
        kwargs.update(attention_mask=mask, position_ids=positions, labels=labels)
        return super().forward(inputs_embeds=embeds, **kwargs)

    def prepare_inputs_labels_for_multimodal(
        self, input_ids: Tensor, position_ids: Any, attention_mask: Any, past: Any, labels: Any, images: Any
    ) -> tuple[Any, ...]:
        mask = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        labels = torch.full_like(input_ids, IGNORE) if labels is None else labels
        queue = iter(images)
        sequences = []
        for ids, kept, label in zip(input_ids, mask, labels, strict=True):
            parts, marks = [], []
            for token, mark in zip(ids[kept], label[kept], strict=True):
                image = next(queue) if token == PLACEHOLDER else None
                parts.append(self.model.embed_tokens(token[None]) if image is None else image)
                marks.append(mark[None] if image is None else torch.full((len(image),), IGNORE))
            sequences.append((torch.cat(parts)[: self.context], torch.cat(marks)[: self.context]))
        embeds, marks = (
            pad_sequence(list(column), batch_first=True, padding_value=value, padding_side=self.side)
            for column, value in zip(zip(*sequences, strict=True), (0.0, IGNORE), strict=True)
        )
        ones = [torch.ones(len(one), dtype=torch.long) for one, _ in sequences]
        return None, None, pad_sequence(ones, batch_first=True, padding_side=self.side), None, embeds, marks
