"""Normalise a weighted loss over an optimizer step, for any trainer built on Hugging Face's ``Trainer``.

The divisor is taken over all micro-batches and devices of the step:

- ``weights`` (CAL): Σ w·nll / Σ w.
- ``tokens`` (as in ``Trainer`` itself): Σ w·nll / number of trained tokens. With
  ``WeightAligner(mean="sequence")`` every sequence's weights average 1, PRIOR's k·w/Σw.

So 8 rows give the same step as one micro-batch of 8, two of 4, or four of 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from scorer.errors import ConfigError, WeightsError
from scorer.training.collator import TOKEN_WEIGHTS
from scorer.training.loss import total_weight

Normalization = Literal["weights", "tokens"]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """A batch separated into the model's inputs and the weights.

    Attributes:
        inputs: the batch without its weights.
        weights: [B, T], aligned with the labels.
        total: the divisor of Σ w·nll: the whole step's total if the batch is part of a step, else the batch's own.
        in_step: whether the batch is part of an optimizer step.
    """

    inputs: dict[str, Any]
    weights: Tensor
    total: Tensor | int
    in_step: bool


class WeightedSteps:
    """Divide the loss by a step's total, and refuse options that lose the weights.

    A subclass adds the loss in ``compute_loss``.

    Args:
        normalization: ``weights`` or ``tokens``; see the module's docstring. All other arguments are the trainer's.

    Raises:
        ConfigError: the arguments select a loss or a kind of parallelism that loses the weights.
    """

    args: Any
    accelerator: Any

    def __init__(self, *args: Any, normalization: Normalization = "weights", **kwargs: Any) -> None:
        if normalization not in ("weights", "tokens"):
            raise ConfigError(f"normalization is {normalization!r}; it must be 'weights' or 'tokens'")
        self.normalization = normalization
        super().__init__(*args, **kwargs)
        refuse_what_loses_weights(self)
        # compute_loss already divides by the whole step's total.
        self.model_accepts_loss_kwargs = True

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """Return a step's micro-batches, and the divisor of their losses in place of ``Trainer``'s number of tokens."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]  # Trainer's
        if not batches:
            return batches, None
        total = torch.stack([self.total(batch) for batch in batches]).sum().to(device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return batches, total

    def total(self, batch: Mapping[str, Any]) -> Tensor:
        """Return what one batch adds to the divisor, a scalar float32."""
        weights = _weights_of(batch)
        return total_weight(batch["labels"], weights if self.normalization == "weights" else torch.ones_like(weights))

    def micro_batch(self, model: Any, batch: Mapping[str, Any], step_total: Tensor | int | None) -> MicroBatch:
        """Separate the weights from a batch passed to ``compute_loss``, and choose the divisor of its loss.

        Args:
            step_total: the second result of :meth:`get_batch_samples`, which ``Trainer`` calls ``num_items_in_batch``.

        Raises:
            WeightsError: the batch has no weights.
        """
        inputs = {name: value for name, value in batch.items() if name != TOKEN_WEIGHTS}
        weights = _weights_of(batch)
        if model.training and step_total is not None:
            return MicroBatch(inputs, weights, step_total, in_step=True)
        return MicroBatch(inputs, weights, self.total(batch), in_step=False)


def _weights_of(batch: Mapping[str, Any]) -> Tensor:
    """Return the weights of a batch, [B, T]. Raise WeightsError if it has none."""
    if TOKEN_WEIGHTS not in batch:
        raise WeightsError(
            f"the batch has no {TOKEN_WEIGHTS!r}; it has {', '.join(batch)}: give the trainer a "
            "scorer.training.WeightedCollator as its data_collator"
        )
    weights: Tensor = batch[TOKEN_WEIGHTS]
    return weights


def refuse_what_loses_weights(trainer: Any) -> None:
    """Raise ConfigError for arguments that would drop the weights or apply them to the wrong tokens."""
    args, parallel = trainer.args, getattr(trainer.accelerator, "parallelism_config", None)
    shards = parallel is not None and (parallel.cp_enabled or parallel.sp_enabled or parallel.tp_enabled)
    refuse(
        type(trainer),
        {
            "remove_unused_columns=True": (args.remove_unused_columns, "drops the samples' ids; set it to False"),
            "label_smoothing_factor": (args.label_smoothing_factor > 0, "replaces the loss; set it to 0"),
            "compute_loss_func": (trainer.compute_loss_func is not None, "replaces the loss; leave it out"),
            "several GPUs in one process": (
                args.n_gpu > 1,
                "splits batches without their weights; launch with torchrun",
            ),
            "context, sequence or tensor parallelism": (
                shards,
                "splits labels without their weights; use data parallelism",
            ),
        },
    )


def refuse(trainer: type, options: Mapping[str, tuple[bool, str]]) -> None:
    """Raise ConfigError for the first option in use. ``options`` maps a name to whether it is used, and its effect."""
    for name, (used, why) in options.items():
        if used:
            raise ConfigError(f"{trainer.__name__} cannot weight the loss with {name}: it {why}")
