"""Train with Hugging Face's ``Trainer`` and a weighted loss."""

from __future__ import annotations

from typing import Any

from scorer.extras import needing

with needing(__name__, extra="train"):
    from torch import Tensor
with needing(__name__):
    from transformers import Trainer

from scorer.training.loss import weighted_cross_entropy
from scorer.training.weighted_steps import WeightedSteps


class WeightedLossMixin(WeightedSteps):
    """Give a subclass of ``Trainer`` a weighted loss: ``class Mine(WeightedLossMixin, Trainer): ...``

    Batches must come from :class:`scorer.training.WeightedCollator`; arguments and errors are those of
    :class:`scorer.training.weighted_steps.WeightedSteps`.
    """

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the weighted loss of a micro-batch; the model receives neither weights nor labels."""
        batch = self.micro_batch(model, inputs, num_items_in_batch)
        labels = batch.inputs.pop("labels")
        outputs = model(**batch.inputs)
        loss = weighted_cross_entropy(outputs.logits, labels, batch.weights, total=batch.total)
        if batch.in_step and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over devices, not added
        return (loss, outputs) if return_outputs else loss


class WeightedTrainer(WeightedLossMixin, Trainer):  # type: ignore[misc]  # transformers is untyped
    """``Trainer`` with the loss of :class:`WeightedLossMixin`."""
