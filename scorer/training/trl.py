"""TRL's ``SFTTrainer`` with a weighted loss, for vision-language models, with or without LoRA.

Its fused LM head gives the log-probability of every label without the full logits; they are weighed where they leave
it, so that memory, metrics (entropy, token accuracy) and the auxiliary loss of mixtures of experts stay as they are.

Refused, because they cannot carry weights: ``loss_type="dft"`` and ``compute_loss_func`` and label smoothing (other
losses), packing and padding-free batches (TRL builds them with a collator of its own, for text only), context,
sequence and tensor parallelism (labels are split, weights are not), and prompt-learning PEFT (it adds positions).
``use_liger_kernel`` is fine: TRL does not let it replace the loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl import SFTTrainer

from scorer.errors import ConfigError, WeightsError
from scorer.training.collator import WeightedCollator
from scorer.training.weighted_steps import MicroBatch, WeightedSteps, refuse


class WeightedSFTTrainer(WeightedSteps, SFTTrainer):  # type: ignore[misc]  # trl is untyped
    """``SFTTrainer`` for batches of :class:`scorer.training.WeightedCollator`.

    Args:
        args: an ``SFTConfig`` with ``remove_unused_columns=False``; what cannot carry weights is refused.
        data_collator: wraps TRL's ``DataCollatorForVisionLanguageModeling`` (or another).

    ``normalization`` and errors are those of :class:`scorer.training.weighted_steps.WeightedSteps`; everything else is
    ``SFTTrainer``'s.
    """

    def __init__(self, model: Any, args: Any = None, data_collator: Any = None, *others: Any, **kwargs: Any) -> None:
        _check_arguments(args, data_collator)
        super().__init__(model, args, data_collator, *others, **kwargs)

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """TRL's own, on log-probabilities that are weighed and divided already; the model never sees the weights."""
        batch = self.micro_batch(model, inputs, num_items_in_batch)
        weighed = _WeighedModel(model, batch)
        # TRL divides by the number that it is given, or else by the batch's number of labels.
        return super().compute_loss(
            weighed, batch.inputs, return_outputs, num_items_in_batch=1 if batch.in_step else None
        )


class _WeighedModel:
    """A model whose fused log-probabilities are weighed: what TRL adds up is the loss."""

    def __init__(self, model: Any, batch: MicroBatch) -> None:
        self.model, self.batch = model, batch

    def __call__(self, **inputs: Any) -> Any:
        outputs = self.model(**inputs)
        if not inputs.get("fused_lm_head"):
            return outputs  # full logits, for metrics
        log_probs = outputs.log_probs  # [B, T - 1], 0 where nothing is labelled
        weights = self.batch.weights[:, 1:].to(log_probs)
        if weights.shape != log_probs.shape:
            raise WeightsError(
                f"the model gives log-probabilities of shape {tuple(log_probs.shape)} for weights of shape "
                f"{tuple(weights.shape)}: prompt-learning PEFT adds positions; use LoRA"
            )
        total = torch.as_tensor(self.batch.total).to(log_probs)
        total = torch.where(total > 0, total, torch.ones_like(total))
        divided_by = 1 if self.batch.in_step else outputs.label_mask.sum().clamp(min=1)
        outputs.log_probs = log_probs * weights.detach() * (divided_by / total)
        return outputs


def _check_arguments(args: Any, data_collator: Any) -> None:
    if not isinstance(data_collator, WeightedCollator):
        raise ConfigError(
            f"data_collator is {type(data_collator).__name__}; give a scorer.training.WeightedCollator around TRL's "
            "DataCollatorForVisionLanguageModeling, whose batches hold the weights"
        )
    if args is None:
        raise ConfigError("args is None; give an SFTConfig with remove_unused_columns=False, which keeps samples' ids")
    refuse(
        WeightedSFTTrainer,
        {
            "packing=True": (args.packing or args.eval_packing, "joins text-only samples without their weights"),
            "padding_free=True": (args.padding_free, "joins samples by a collator of TRL's own"),
            f"loss_type={args.loss_type!r}": (args.loss_type != "nll", "is another loss; use 'nll'"),
        },
    )
