"""Train with TRL's ``SFTTrainer`` and a weighted loss: vision-language models, with or without LoRA.

TRL's fused LM head returns the log-probability of every label without the full logits. The weights are applied to its
output, so memory, metrics (entropy, token accuracy) and the auxiliary loss of mixtures of experts are unchanged.

Refused because they lose the weights: ``loss_type="dft"``, ``compute_loss_func`` and label smoothing (other losses);
packing and padding-free batches (TRL builds them with its own collator, for text only); context, sequence and tensor
parallelism (labels are split, weights are not); and prompt-learning PEFT (it adds positions). ``use_liger_kernel`` is
fine: TRL does not let it replace the loss.
"""

from __future__ import annotations

from typing import Any

from scorer.extras import needing

with needing(__name__, extra="train"):
    import torch
    from torch import Tensor
with needing(__name__):
    from trl import SFTTrainer

from scorer.errors import ConfigError, WeightsError
from scorer.training.collator import WeightedCollator
from scorer.training.weighted_steps import MicroBatch, WeightedSteps, refuse


class WeightedSFTTrainer(WeightedSteps, SFTTrainer):  # type: ignore[misc]  # trl is untyped
    """``SFTTrainer`` for batches of :class:`scorer.training.WeightedCollator`.

    Args:
        args: an ``SFTConfig`` with ``remove_unused_columns=False``; options that lose the weights are refused.
        data_collator: a ``WeightedCollator`` around TRL's ``DataCollatorForVisionLanguageModeling`` (or another).

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
        """Return TRL's loss of log-probabilities that are already weighted and divided by the total.

        The model never receives the weights.
        """
        batch = self.micro_batch(model, inputs, num_items_in_batch)
        weighted = _WeightedModel(model, batch)
        # TRL divides by num_items_in_batch or, if that is None, by the batch's number of labels.
        return super().compute_loss(
            weighted, batch.inputs, return_outputs, num_items_in_batch=1 if batch.in_step else None
        )


class _WeightedModel:
    """Wrap a model and weight its fused log-probabilities, so that TRL's sum over them is the weighted loss."""

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
                f"the model returns log-probabilities of shape {tuple(log_probs.shape)} for weights of shape "
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
            f"data_collator is {type(data_collator).__name__}, whose batches have no weights; give a "
            "scorer.training.WeightedCollator around TRL's DataCollatorForVisionLanguageModeling"
        )
    if args is None:
        raise ConfigError("args is None; give an SFTConfig with remove_unused_columns=False, which keeps samples' ids")
    refuse(
        WeightedSFTTrainer,
        {
            "packing=True": (args.packing or args.eval_packing, "joins text-only samples without their weights"),
            "padding_free=True": (args.padding_free, "joins samples with TRL's own collator"),
            f"loss_type={args.loss_type!r}": (args.loss_type != "nll", "is another loss; use 'nll'"),
        },
    )
