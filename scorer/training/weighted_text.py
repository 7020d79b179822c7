"""Pair a published row with the texts that a trainer has for it: the source of a projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scorer.errors import SpanError
from scorer.training.rows import WeightRow
from scorer.types import BoolArray, Float32Array, Int64Array


@dataclass(frozen=True, slots=True)
class WeightedText:
    """A published row, and the texts that the trainer has for it.

    Attributes:
        row: the published row.
        texts: the texts of all scored turns as they are in the dataset: a conversation's assistant turns, or a row's
            captions. They must be those that were scored.
        turns: the turns that are trained on in this sequence, ascending; None for all. For example, ``(2,)`` if a
            trainer masks all but the last of three turns, or uses caption 2 of a row that has several.
    """

    row: WeightRow
    texts: Sequence[str]
    turns: Sequence[int] | None = None

    def check(self, unscored: float | None) -> None:
        """Refuse texts that were not scored, turns that do not exist, and weights that are not finite and ≥ 0.

        Args:
            unscored: the weight of text without a score; None refuses such text.

        Raises:
            TableError: the texts are not those that were scored, or the row was not scored or is dropped.
            SpanError: the turns or weights are invalid.
        """
        if self.turns is not None and list(self.turns) != sorted(set(self.turns) & set(range(len(self.texts)))):
            raise SpanError(
                f"{self.row.name}: turns are {list(self.turns)}, but the row has {len(self.texts)}; list each turn at "
                "most once, in ascending order, counting from 0"
            )
        if self.row.ok or self.row.dropped or unscored is None:
            self.row.check_text(self.texts)
        if self.row.weights is None or unscored is not None:
            return
        wrong = ~_usable(self.row.weights)
        if wrong.any():
            i = int(np.argmax(wrong))
            raise SpanError(
                f"{self.row.name}: the weight of token {i} is {self.row.weights[i]}; weights must be finite and at "
                "least 0: give unscored=<weight> to use instead, or use another method"
            )

    def spans(
        self, first_group: int, unscored: float | None
    ) -> tuple[Float32Array, Int64Array, Int64Array, Int64Array]:
        """Return weights, starts, ends and groups of the row's tokens, all [N], for :func:`scorer.spans.project`.

        Stop tokens, which have no bytes, are not among them: see :meth:`stop_weights`.
        White space that the reference model's template stripped from a text's ends is added to the adjacent token.

        Args:
            first_group: group of the first turn; the other turns get the numbers after it.
            unscored: as in :meth:`check`.

        Raises:
            SpanError: a turn that is trained on was not scored to its end.
        """
        scores, weights = self.row.scores, self.row.weights
        if scores is None or weights is None:
            nothing = np.zeros(0, np.int64)
            return np.zeros(0, np.float32), nothing, nothing, nothing
        of_text = ~scores.is_stop
        weights, turns = _made_usable(weights[of_text], unscored), scores.token_turns[of_text]
        starts, ends = scores.token_starts[of_text].astype(np.int64), scores.token_ends[of_text].astype(np.int64)
        edges = np.searchsorted(turns, np.arange(len(self.texts) + 1)).tolist()
        for turn, text in enumerate(self.texts):
            data, (first, end) = text.encode(), edges[turn : turn + 2]
            scored = int(ends[end - 1]) if end > first else 0
            if data[scored:].strip():
                if unscored is None and (self.turns is None or turn in self.turns):
                    raise SpanError(
                        f"{self.row.name}: turn {turn} has {len(data)} bytes, of which the first {scored} were scored "
                        "(the reference model's context was full); give unscored=<weight> for the rest, or leave the "
                        "row out"
                    )
            elif end > first:
                ends[end - 1] = len(data)
            if end > first and not data[: starts[first]].strip():
                starts[first] = 0
        return weights, starts, ends, first_group + turns.astype(np.int64)

    def usable_weights(self, unscored: float | None) -> Float32Array:
        """Return the weights of the row's tokens, stop tokens too, float32 [N]; for a row without any, ``unscored``.

        Args:
            unscored: as in :meth:`check`.
        """
        if self.row.weights is None:
            return np.zeros(0, np.float32) if unscored is None else np.full(1, unscored, np.float32)
        return _made_usable(self.row.weights, unscored)

    def stop_weights(self, unscored: float | None) -> dict[int, float]:
        """Return the weight of each turn's stop token, by turn; a turn without a scored one is absent.

        Args:
            unscored: as in :meth:`check`.
        """
        if self.row.scores is None or self.row.weights is None:
            return {}
        stop = self.row.scores.is_stop
        weights = _made_usable(self.row.weights[stop], unscored)
        return dict(zip(self.row.scores.token_turns[stop].tolist(), weights.tolist(), strict=True))


def _made_usable(weights: Float32Array, unscored: float | None) -> Float32Array:
    return weights if unscored is None else np.where(_usable(weights), weights, np.float32(unscored))


def _usable(weights: Float32Array) -> BoolArray:
    return np.isfinite(weights) & (weights >= 0)
