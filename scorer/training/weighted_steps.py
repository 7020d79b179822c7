"""What a weighted loss needs of any trainer built on Hugging Face's: what to divide by, and what cannot carry weights.

Normalisation, over all micro-batches and devices of an optimizer's step:

- ``weights`` (CAL): Σ w·nll / Σ w.
- ``tokens`` (as the ``Trainer`` itself): Σ w·nll / number of trained tokens. With
  ``WeightAligner(normalize="mean")`` every sequence's weights average 1, PRIOR's k·w/Σw.

So a step over 8 rows is the same step as 1 × 8, 2 × 4 or 4 × 2 micro-batches make of them.
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
    """A batch on its way to the model, its weights taken out.

    Attributes:
        inputs: the batch without its weights.
        weights: [B, T], aligned with the labels.
        total: what Σ w·nll is divided by: the whole step's total where it is part of one, else the batch's own.
        in_step: whether it is part of an optimizer's step.
    """

    inputs: dict[str, Any]
    weights: Tensor
    total: Tensor | int
    in_step: bool


class WeightedSteps:
    """Divides by a step's total, and refuses what loses the weights; a subclass adds the loss in ``compute_loss``.

    Args:
        normalization: ``weights`` or ``tokens``; see the module's docstring.

    Everything else is the trainer's.

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

    def total(self, batch: Mapping[str, Any]) -> Tensor:
        """What one batch adds to the divisor: scalar float32."""
        weights = _weights_of(batch)
        return total_weight(batch["labels"], weights if self.normalization == "weights" else torch.ones_like(weights))

    def micro_batch(self, model: Any, batch: Mapping[str, Any], step_total: Tensor | int | None) -> MicroBatch:
        """Take the weights out of what ``compute_loss`` is given, and settle what its loss is divided by.

        Args:
            step_total: what ``Trainer`` calls ``num_items_in_batch``: the second answer of :meth:`get_batch_samples`.

        Raises:
            WeightsError: the batch has no weights.
        """
        inputs = {name: value for name, value in batch.items() if name != TOKEN_WEIGHTS}
        weights = _weights_of(batch)
        if model.training and step_total is not None:
            return MicroBatch(inputs, weights, step_total, in_step=True)
        return MicroBatch(inputs, weights, self.total(batch), in_step=False)


def _weights_of(batch: Mapping[str, Any]) -> Tensor:
    """The weights of a batch, [B, T]. Raises WeightsError where there are none."""
    if TOKEN_WEIGHTS not in batch:
        raise WeightsError(
            f"the batch has no {TOKEN_WEIGHTS!r}; it has {', '.join(batch)}: give the trainer a "
            "scorer.training.WeightedCollator as its data_collator"
        )
    weights: Tensor = batch[TOKEN_WEIGHTS]
    return weights


def refuse_what_loses_weights(trainer: Any) -> None:
    """Raise ConfigError for arguments under which the weights would be dropped or applied to other tokens."""
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
    """Raise ConfigError for the first option in use. ``options``: name → whether it is, and what it does."""
    for name, (used, why) in options.items():
        if used:
            raise ConfigError(f"{trainer.__name__} cannot weigh the loss with {name}: it {why}")
