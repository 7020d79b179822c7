"""Carry the reference model's losses onto a trainer's tokens, to compare a live student with it.

Losses add up, unlike weights: a token that covers two of the reference's has the sum of their losses, and a token that
covers half the bytes of one has half its loss (:func:`scorer.spans.apportion`). Pure numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from scorer.errors import TableError
from scorer.spans import apportion
from scorer.training.alignment import Ids, TruncationSide, WeightAligner
from scorer.training.rows import WeightRow
from scorer.training.weighted_text import WeightedText
from scorer.types import Float32Array


class ReferenceLosses(WeightAligner):
    """Find the reference model's loss of every labelled token of a trainer's sequences, as a WeightAligner would.

    A token of a row with an image has the loss given it, −``logprob_clean``; one of a text-only row the loss of the
    text alone, −``logprob_contrast``. Whichever weights a row has are not read.

    Args:
        tokenizer, max_length, truncation_side, headers: as for :class:`WeightAligner`.

    Raises:
        SpanError: the tokenizer does not preserve the bytes of a text.
        ConfigError: an option is out of range.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int | None = None,
        truncation_side: TruncationSide = "right",
        headers: Sequence[str] = (),
    ) -> None:
        super().__init__(tokenizer, max_length=max_length, truncation_side=truncation_side, headers=headers)
        self.template_weight = self.unscored = np.nan  # unknown, where the reference scored nothing

    def __call__(
        self,
        input_ids: Ids,
        labels: Ids,
        samples: Sequence[WeightedText | Sequence[WeightedText]],
        lengths: Sequence[int] | None = None,
    ) -> list[Float32Array]:
        """Return the losses of B sequences, in nats: B arrays float32 [T] ≥ 0.

        A labelled token that the reference did not score is NaN: a role header, a stop token that the output lacks, the
        rest of a text that was truncated. Positions with the label -100 are 0. Arguments and errors are those of
        :meth:`WeightAligner.__call__`, and:

        Raises:
            TableError: a row holds no log-probabilities, as one from a record that stores weights only.
        """
        rows = [(one,) if isinstance(one, WeightedText) else tuple(one) for one in samples]
        with_losses = [[replace(one, row=_with_losses(one.row)) for one in row] for row in rows]
        return super().__call__(input_ids, labels, with_losses, lengths)

    def _carry(self, values: Float32Array, *spans: Any, **groups: Any) -> Float32Array:
        return apportion(values, *spans, **groups)


def _with_losses(row: WeightRow) -> WeightRow:
    """Return the row with the reference's losses in the place of its weights."""
    if row.scores is None:
        raise TableError(row.no_weights)
    logprobs = row.scores.logprob_contrast if row.text_only else row.scores.logprob_clean
    if not row.text_only and len(logprobs) and np.isnan(logprobs).all():
        raise TableError(
            f"{row.name} holds no log-probabilities of the reference model, as an exported record does not: read the "
            "published output"
        )
    return replace(row, weights=np.maximum(-logprobs, np.float32(0)))  # rounding can push a logarithm above 0
