"""Hugging Face's ``Trainer`` with a weighted loss.

Normalisation, over all micro-batches and devices of an optimizer's step:

- ``weights`` (CAL): Σ w·nll / Σ w.
- ``tokens`` (as the ``Trainer`` itself): Σ w·nll / number of trained tokens. With
  ``WeightAligner(normalize="mean")`` every sequence's weights average 1, PRIOR's k·w/Σw.

So a step over 8 rows is the same step as 1 × 8, 2 × 4 or 4 × 2 micro-batches make of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from scorer.extras import needing

with needing(__name__):
    import torch
    from torch import Tensor
    from transformers import Trainer

from scorer.errors import ConfigError, WeightsError
from scorer.training.alignment import IGNORE_INDEX
from scorer.training.collator import TOKEN_WEIGHTS
from scorer.training.loss import total_weight, weighted_cross_entropy

Normalization = Literal["weights", "tokens"]


class WeightedSteps:
    """What any subclass of ``Trainer`` needs for a weighted loss but the loss: what to divide by, and what to refuse.

    Args:
        normalization: see the module's docstring.

    Raises:
        ConfigError: the arguments ask for a loss or a way of sharding that loses the weights.
    """

    args: Any
    accelerator: Any

    def __init__(self, *args: Any, normalization: Normalization = "weights", **kwargs: Any) -> None:
        if normalization not in ("weights", "tokens"):
            raise ConfigError(f"normalization is {normalization!r}; it must be 'weights' or 'tokens'")
        self.normalization = normalization
        super().__init__(*args, **kwargs)
        refuse_what_loses_weights(self)
        # What compute_loss returns is divided by the whole step's total already.
        self.model_accepts_loss_kwargs = True

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """A step's micro-batches, and what their losses are divided by, in the place of a number of tokens."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]  # Trainer's
        if not batches:
            return batches, None
        total = torch.stack([self.total(batch) for batch in batches]).sum().to(device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return batches, total

    def total(self, batch: Any) -> Tensor:
        """What one batch adds to the divisor: scalar float32."""
        labels, weights = batch["labels"], take_weights(batch)
        return total_weight(labels, weights if self.normalization == "weights" else torch.ones_like(weights))


class WeightedLossMixin(WeightedSteps):
    """Makes the loss of a subclass of ``Trainer`` a weighted one: ``class Mine(WeightedLossMixin, Trainer): ...``"""

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The weighted loss of a micro-batch; the model sees neither weights nor labels."""
        in_step = model.training and num_items_in_batch is not None
        total = num_items_in_batch if in_step else self.total(inputs)
        labels, weights = inputs["labels"], take_weights(inputs)
        outputs = model(**{name: value for name, value in inputs.items() if name not in ("labels", TOKEN_WEIGHTS)})
        loss = weighted_cross_entropy(outputs.logits, labels, weights, ignore_index=IGNORE_INDEX, total=total)
        if in_step and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # devices' gradients are averaged, not added
        return (loss, outputs) if return_outputs else loss


class WeightedTrainer(WeightedLossMixin, Trainer):  # type: ignore[misc]  # transformers is untyped
    """``Trainer`` for batches of :class:`scorer.training.WeightedCollator`; see the module's docstring."""


def take_weights(batch: Any) -> Tensor:
    """The weights of a batch, [B, T]. Raises WeightsError where there are none."""
    if TOKEN_WEIGHTS not in batch:
        raise WeightsError(
            f"the batch has no {TOKEN_WEIGHTS!r}; it has {', '.join(batch)}: give the trainer a "
            "scorer.training.WeightedCollator as its data_collator"
        )
    weights: Tensor = batch[TOKEN_WEIGHTS]
    return weights


def refuse_what_loses_weights(trainer: Trainer) -> None:
    """Raise ConfigError for arguments under which the weights would be dropped or applied to other tokens."""
    args, parallel = trainer.args, getattr(trainer.accelerator, "parallelism_config", None)
    shards = parallel is not None and (parallel.cp_enabled or parallel.sp_enabled or parallel.tp_enabled)
    refused = {
        "remove_unused_columns=True": (args.remove_unused_columns, "drops the samples' ids; set it to False"),
        "label_smoothing_factor": (args.label_smoothing_factor > 0, "replaces the loss; set it to 0"),
        "compute_loss_func": (trainer.compute_loss_func is not None, "replaces the loss; leave it out"),
        "several GPUs in one process": (args.n_gpu > 1, "splits batches without their weights; launch with torchrun"),
        "context, sequence or tensor parallelism": (
            shards,
            "splits labels without their weights; use data parallelism",
        ),
    }
    for name, (used, why) in refused.items():
        if used:
            raise ConfigError(f"{type(trainer).__name__} cannot weigh the loss with {name}: it {why}")
