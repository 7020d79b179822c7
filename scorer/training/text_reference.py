"""Join a text reference's log-probabilities to the tokens of another reference model, by the bytes of the same texts.

A text reference is a language model that was trained on the captions alone (``tokensight train-text-reference``). Its
tokenizer is another one, so its log-probabilities are carried over by bytes (:func:`scorer.spans.apportion`):

* The log-probability of a token that covers whole tokens of the text reference is the sum of theirs.
* If a token of the text reference straddles a boundary, its log-probability is split in proportion to bytes, so that
  the sum over a turn is that of the text reference.
* A stop token has the log-probability of the text reference's own stop token of the same turn; NaN if that has none.

Rows are matched by shard and position, and compared by the hash of their texts: both runs read the same dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, get_args

import numpy as np
import pyarrow as pa

from scorer.errors import ConfigError, TableError
from scorer.results import TokenScores
from scorer.spans import apportion
from scorer.table import read_metadata
from scorer.training.rows import Rows
from scorer.types import Float32Array

Missing = Literal["error", "nan"]
"""What becomes of a row or token that the text reference did not score: an error that names it, or NaN."""

_REMEDY: Final = "give text_missing='nan' (tokensight export: --text-missing leave-out)"

TEXT_ALONE: Final = "removed"
"""The contrast whose log-probabilities are those of the text alone; a language model has no other."""


class _Output(Protocol):
    """The part of :class:`scorer.training.reader.PublishedWeights` that is read here."""

    @property
    def root(self) -> str: ...
    @property
    def shards(self) -> tuple[str, ...]: ...
    @property
    def summary(self) -> Mapping[str, Any]: ...
    def load(self, name: str) -> pa.Table: ...


@dataclass(frozen=True, repr=False)
class TextReference:
    """The output of a run that scored the texts alone.

    Attributes:
        output: the published output: that of a language model, or of a vision-language model whose first contrast is
            ``removed``.
        missing: see :data:`Missing`.

    Raises:
        ConfigError: ``missing`` is neither.
        TableError: the output's summary says that its first contrast is another one.
    """

    output: _Output
    missing: Missing = "error"

    def __post_init__(self) -> None:
        if self.missing not in get_args(Missing):
            raise ConfigError(f"text_missing is {self.missing!r}; it must be one of {', '.join(get_args(Missing))}")
        if "contrast" in self.output.summary:
            self._check_contrast(str(self.output.summary["contrast"]).split(",")[0], self.output.root)

    def __repr__(self) -> str:
        return f"<TextReference {self.description}>"

    @property
    def description(self) -> str:
        """The model that scored the texts, and the output that holds its scores."""
        model = self.output.summary.get("model")
        return repr(self.output.root) if model is None else f"{model!r} ({self.output.root!r})"

    def shard(self, name: str) -> TextShard:
        """Return the text reference's scores of one shard.

        Raises:
            TableError: the output has no such shard, and ``missing`` is ``error``; or it is not that of texts alone.
        """
        if name not in self.output.shards:
            if self.missing == "error":
                raise TableError(
                    f"the text reference {self.output.root} has no shard {name!r}; score the same dataset with it, or "
                    f"{_REMEDY}"
                )
            return TextShard(self, None)
        table = self.output.load(name)
        place = f"{self.output.root}/{name}"
        self._check_contrast(read_metadata(table.schema, place).get("fingerprint", {}).get("contrast"), place)
        return TextShard(self, Rows(table, name))

    def _check_contrast(self, contrast: Any, place: str) -> None:
        if contrast != TEXT_ALONE:
            raise TableError(
                f"{place} has the contrast {contrast!r}; a text reference's probabilities are those of the text alone: "
                f"give the output of a run with a language model and --contrast {TEXT_ALONE}"
            )


class TextShard:
    """One shard's scores by a text reference. Calling it is :data:`scorer.training.rows.TextLogprobs`.

    Args:
        reference: the text reference.
        rows: its rows of the shard; None if it has no such shard.
    """

    def __init__(self, reference: TextReference, rows: Rows | None) -> None:
        self._reference, self._rows = reference, rows

    def __call__(self, name: str, row_index: int, scores: TokenScores) -> Float32Array:
        """Return the log-probability of each token of a row by the text reference, float32 [N], in nats.

        Args:
            name: the row, for messages.
            row_index: its position in the shard.
            scores: its tokens by the other reference model.

        Raises:
            TableError: the text reference scored another text; or it lacks the row or a part of its text, and
                ``missing`` is ``error``.
        """
        root, row = self._reference.output.root, None
        if self._rows is not None and 0 <= row_index < len(self._rows):
            row = self._rows[row_index]
        if row is None or row.scores is None:
            why = "has no such row" if row is None else f"did not score it: {row.status} ({row.error})"
            self._refuse_missing(f"{name}: the text reference {root} {why}; score the same dataset with it")
            return np.full(len(scores.token_ids), np.nan, np.float32)
        if row.scores.text_hash != scores.text_hash:
            raise TableError(
                f"{name}: the text reference {root} scored a text with hash {row.scores.text_hash}, but the row's text "
                f"has hash {scores.text_hash}; score the same dataset with both models"
            )
        found = text_logprobs(row.scores, scores)
        absent = np.flatnonzero(np.isnan(found) & ~scores.is_stop)
        if len(absent):
            i = absent[0]
            self._refuse_missing(
                f"{name}: the text reference {root} gives no probability to {len(absent)} of the row's {len(found)} "
                f"tokens, the first at bytes {scores.token_starts[i]} to {scores.token_ends[i]} of turn "
                f"{scores.token_turns[i]}; score with it without --truncate, and with a chat template that trims no "
                "white space"
            )
        return found

    def _refuse_missing(self, problem: str) -> None:
        if self._reference.missing == "error":
            raise TableError(f"{problem}, or {_REMEDY}")


def text_logprobs(text: TokenScores, scores: TokenScores) -> Float32Array:
    """Carry a text reference's log-probabilities of a row onto the tokens of another model's scores of the same texts.

    Args:
        text: M tokens by the text reference, of which ``logprob_contrast`` is read.
        scores: N tokens by the other model.

    Returns:
        float32 [N], in nats; NaN where ``text`` does not cover all bytes of a token, or has no stop token.
    """
    found = np.full(len(scores.token_ids), np.nan, np.float32)
    source, target = ~text.is_stop, ~scores.is_stop
    found[target] = apportion(
        text.logprob_contrast[source],
        text.token_starts[source],
        text.token_ends[source],
        scores.token_starts[target],
        scores.token_ends[target],
        source_groups=text.token_turns[source],
        target_groups=scores.token_turns[target],
    )
    stops = dict(zip(text.token_turns[~source].tolist(), text.logprob_contrast[~source].tolist(), strict=True))
    found[~target] = [stops.get(turn, np.nan) for turn in scores.token_turns[~target].tolist()]
    return found
