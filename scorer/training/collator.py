"""Wrap a trainer's collator so that its batches include token weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from scorer.errors import TableError
from scorer.extras import needing
from scorer.messages import is_conversation_text, scored_texts
from scorer.training.alignment import WeightAligner
from scorer.training.rows import WeightRow
from scorer.training.weight_table import WeightTable
from scorer.training.weighted_text import WeightedText

TOKEN_WEIGHTS: Final = "token_weights"
"""Key of the weights in a batch; whatever computes the loss removes them before calling the model."""

Sample = Mapping[str, Any]
Texts = tuple[Sequence[str], Sequence[int] | None]
"""The scored texts of a sample, and the indices of those trained on (None for all): see :class:`WeightedText`."""


class WeightedCollator:
    """Call a collator and add ``token_weights``, float32 [B, T], aligned with its ``labels``.

    Args:
        collator: returns a batch with tensors ``input_ids`` and ``labels`` [B, T], and ``attention_mask`` if it pads.
        aligner: for the collator's tokenizer, with the ``max_length`` at which the collator truncates.
        rows: the published weights, looked up by ``id_column``; or a function that returns a sample's row, such as
            :meth:`WeightRow.from_columns` for samples that include the columns themselves (``--layout merged``).
        id_column: the key of a sample's id.
        texts: returns a sample's scored texts; :func:`texts_of` by default.
    """

    def __init__(
        self,
        collator: Callable[[list[Any]], Any],
        aligner: WeightAligner,
        rows: WeightTable | Callable[[Sample], WeightRow],
        *,
        id_column: str = "id",
        texts: Callable[[Sample], Texts] | None = None,
    ) -> None:
        self.collator = collator
        self.aligner = aligner
        self.rows = rows
        self.id_column = id_column
        self.texts = texts or texts_of

    def __call__(self, samples: list[Any]) -> Any:
        """Return the collator's batch with the weights added.

        Raises:
            TableError: a sample has no id or no texts, no row has this id, or the texts are not those scored.
            SpanError: the texts are not found in the labelled tokens.
        """
        with needing("WeightedCollator", extra="train"):
            import torch

        weighted = [WeightedText(self._row(sample), *self.texts(sample)) for sample in samples]
        batch = self.collator(samples)  # only now: a collator may change the samples
        ids, labels = (np.asarray(batch[name]) for name in ("input_ids", "labels"))
        lengths = np.asarray(batch["attention_mask"]).sum(axis=-1).tolist() if "attention_mask" in batch else None
        batch[TOKEN_WEIGHTS] = torch.from_numpy(np.stack(self.aligner(ids, labels, weighted, lengths)))
        return batch

    def _row(self, sample: Sample) -> WeightRow:
        if not isinstance(self.rows, WeightTable):
            return self.rows(sample)
        if self.id_column not in sample:
            raise TableError(
                f"a sample has no {self.id_column!r}; it has {', '.join(sample)}: name its id column with id_column, "
                "and set remove_unused_columns=False in the trainer's arguments, which otherwise drop the ids"
            )
        return self.rows.find(sample[self.id_column])


def texts_of(sample: Sample) -> Texts:
    """Return the scored texts of a sample in one of the usual forms.

    ``messages`` or ``conversations``: the assistant turns. ``prompt`` and ``completion`` (TRL): the assistant turns of
    both, of which only those of the completion are trained on; or the completion, if it is a string. ``caption``: a
    string.

    Raises:
        TableError: the sample has none of these.
        RowError: the messages are not a valid conversation.
    """
    for name in ("messages", "conversations"):
        if sample.get(name) is not None:
            return scored_texts(sample[name]), None
    if sample.get("completion") is not None:
        completion, prompt = sample["completion"], sample.get("prompt")
        before = () if prompt is None or _is_text(prompt) else scored_texts(prompt)
        if _is_text(completion):
            return ((completion,), None) if not before else ((*before, completion), (len(before),))
        texts = scored_texts(completion, prompt)
        return texts, range(len(before), len(texts))
    if isinstance(sample.get("caption"), str):
        return (sample["caption"],), None
    raise TableError(
        f"a sample has {', '.join(sample)}, and no messages, conversations, completion or caption with its text; "
        "give the collator texts=<function of a sample>, which returns the scored texts and None"
    )


def _is_text(value: Any) -> bool:
    """Whether a prompt or completion is a text or its parts, and no list of messages stored as a string."""
    return isinstance(value, str) and not is_conversation_text(value)
