"""Train with LLaVA's own trainer, moving the weights to where its model moves the labels.

LLaVA's model replaces one ``<image>`` id (-200) with N feature vectors, drops padding, truncates to the context and
pads again. Labels and weights given with the ids then no longer match the logits. The model rearranges the labels but
never reads them, so the mixin passes position numbers as labels and sees where each one ended up::

    input ids   <s>  <image>   a   kite          labels  -100 -100  a  kite      weights  0  0  1  5
    numbers      0      1      2     3
    laid out     0    -100 -100 -100  2  3       labels  -100 -100 -100 -100  a  kite    weights  0  0  0  0  1  5
"""

from __future__ import annotations

from typing import Any

from scorer.extras import needing

with needing(__name__, extra="train"):
    import torch
    from torch import Tensor

from scorer.errors import WeightsError
from scorer.training.alignment import IGNORE_INDEX
from scorer.training.loss import weighted_cross_entropy


class LlavaWeightsMixin:
    """Give LLaVA's model a weighted loss: ``class Weighted(LlavaWeightsMixin, LlavaLlamaForCausalLM): ...``

    The batch must contain ``token_weights`` [B, T], aligned with ``labels`` before images are inserted, from a
    :class:`scorer.training.WeightedCollator` around LLaVA's own collator. ``outputs.loss`` is Σ w·nll / Σ w of the
    micro-batch, as CAL's authors train; the trainer averages over accumulated micro-batches.

    The mixin wraps ``forward`` and ``prepare_inputs_labels_for_multimodal``, whose arguments before ``labels`` are
    LLaVA's: input ids, position ids, attention mask, past key values.
    """

    _numbers: Tensor | None = None
    _laid_out: Tensor | None = None

    def forward(self, *args: Any, token_weights: Tensor | None = None, **kwargs: Any) -> Any:
        """Call LLaVA's ``forward``; if there are weights, pass them and the labels by name.

        Raises:
            WeightsError: labels are missing or differ in shape, or the model never placed its image features.
        """
        if token_weights is None:
            return super().forward(*args, **kwargs)  # type: ignore[misc]  # LLaVA's
        labels = kwargs.pop("labels", None)
        if labels is None or labels.shape != token_weights.shape:
            shape = None if labels is None else tuple(labels.shape)
            raise WeightsError(
                f"labels have shape {shape}, token_weights {tuple(token_weights.shape)}; give both by "
                "name, of one shape"
            )
        self._numbers = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
        outputs = super().forward(*args, labels=self._numbers, **kwargs)  # type: ignore[misc]  # LLaVA's
        at, self._numbers, self._laid_out = self._laid_out, None, None
        if at is None:
            raise WeightsError(
                f"{type(self).__name__} did not call prepare_inputs_labels_for_multimodal; put LlavaWeightsMixin "
                "before the class of LLaVA's model, and give input ids, not embeddings"
            )
        kept, index = at != IGNORE_INDEX, at.clamp(min=0).to(labels.device)
        laid_out = labels.gather(1, index).to(at.device).masked_fill(~kept, IGNORE_INDEX)  # [B, T with images]
        weights = token_weights.gather(1, index).to(at.device).masked_fill(~kept, 0.0)
        logits = outputs.logits
        outputs.loss = weighted_cross_entropy(logits, laid_out.to(logits.device), weights.to(logits.device))
        return outputs

    def prepare_inputs_labels_for_multimodal(
        self, ids: Any, positions: Any, mask: Any, past: Any, labels: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Call LLaVA's method; keep rearranged position numbers, and withhold them from the model's own loss."""
        prepared = super().prepare_inputs_labels_for_multimodal(  # type: ignore[misc]  # LLaVA's
            ids, positions, mask, past, labels, *args, **kwargs
        )
        if labels is None or labels is not self._numbers:
            return prepared
        *others, self._laid_out = prepared
        return (*others, None)
