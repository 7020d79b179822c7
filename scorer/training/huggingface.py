"""Hugging Face's ``Trainer`` with a weighted loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Trainer

from scorer.training.loss import weighted_cross_entropy
from scorer.training.weighted_steps import WeightedSteps


class WeightedLossMixin(WeightedSteps):
    """Makes the loss of a subclass of ``Trainer`` a weighted one: ``class Mine(WeightedLossMixin, Trainer): ...``

    Its batches are those of :class:`scorer.training.WeightedCollator`; arguments and errors are those of
    :class:`scorer.training.weighted_steps.WeightedSteps`.
    """

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The weighted loss of a micro-batch; the model sees neither weights nor labels."""
        batch = self.micro_batch(model, inputs, num_items_in_batch)
        labels = batch.inputs.pop("labels")
        outputs = model(**batch.inputs)
        loss = weighted_cross_entropy(outputs.logits, labels, batch.weights, total=batch.total)
        if batch.in_step and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # devices' gradients are averaged, not added
        return (loss, outputs) if return_outputs else loss


class WeightedTrainer(WeightedLossMixin, Trainer):  # type: ignore[misc]  # transformers is untyped
    """``Trainer`` with the loss of :class:`WeightedLossMixin`."""
