"""Hold the result of scoring a sample: its tokens' raw scores, or a failure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from scorer.columns import ASKED, IS_STOP, by_contrast, contrasts_in, of_contrast
from scorer.display.html import caption_html
from scorer.display.levels import signed
from scorer.errors import FailureCode, TableError
from scorer.types import BoolArray, Float32Array, Int16Array, Int32Array


@dataclass(frozen=True, slots=True, repr=False)
class Failure:
    """A row that could not be scored, and why. It is never dropped: it becomes a row with null lists.

    Attributes:
        message: for people; what it quotes of the row and is not valid Unicode is escaped, so that it can be stored.
    """

    sample_id: str
    code: FailureCode
    message: str

    def __repr__(self) -> str:
        return f"<Failure {self.sample_id!r}, {self.code.value}: {self.message}>"

    def __post_init__(self) -> None:
        # Data may spell half a surrogate pair, and a message quotes data.
        object.__setattr__(self, "message", self.message.encode("utf-8", "backslashreplace").decode())


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TokenScores:
    """Raw scores of one sample's scored tokens; every array has length N and the name and dtype of its column.

    Attributes:
        token_ids, token_starts, token_ends, token_turns, text_hash: as in :class:`EncodedSample`.
        logit_gap: float32 [N], logit of the label given the image minus given the contrast input (CAL's Δo).
        logprob_clean, logprob_contrast: float32 [N], natural-log probability of the label under each.
        texts: the scored turns' texts, for display; None if only spans are known, since no published file holds texts.
        optional: the run's optional columns (:mod:`scorer.columns`) by name, [N] each.
        text_only: whether the sample has no image. ``logprob_contrast`` is then that of the text alone, or NaN if the
            model cannot run without an image; the other raw scores are NaN, and every weight is 1.
    """

    sample_id: str
    token_ids: Int32Array
    token_starts: Int32Array
    token_ends: Int32Array
    token_turns: Int16Array
    text_hash: str
    logit_gap: Float32Array
    logprob_clean: Float32Array
    logprob_contrast: Float32Array
    optional: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    texts: tuple[str, ...] | None = None
    text_only: bool = False

    @classmethod
    def from_arrays(
        cls, sample_id: str, text_hash: str, arrays: Mapping[str, npt.NDArray[Any]], *, text_only: bool = False
    ) -> Self:
        """Build scores from arrays by column name; arrays without an attribute go to ``optional``."""
        own: Mapping[str, Any] = arrays
        optional: dict[str, npt.NDArray[Any]] = {}
        if len(arrays) > len(_ARRAYS):
            own = {name: arrays[name] for name in _ARRAYS}
            optional = {name: array for name, array in arrays.items() if name not in own}
        return cls(sample_id=sample_id, text_hash=text_hash, optional=optional, text_only=text_only, **own)

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays by column name."""
        return {**{name: getattr(self, name) for name in _ARRAYS}, **self.optional}

    @property
    def is_stop(self) -> BoolArray:
        """bool [N]: whether the token is a stop token, which ends its turn; all False if none was scored."""
        found = self.optional.get(IS_STOP)
        return np.zeros(len(self.token_ids), dtype=np.bool_) if found is None else np.asarray(found, dtype=np.bool_)

    @property
    def logprob_gap(self) -> Float32Array:
        """float32 [N], nats: log-probability of the label given the image minus given the contrast input."""
        return self.logprob_clean - self.logprob_contrast

    @property
    def further_contrasts(self) -> tuple[str, ...]:
        """The contrasts that :meth:`with_contrast` knows, as their columns spell them."""
        return contrasts_in(self.optional)

    def with_contrast(self, contrast: str) -> TokenScores:
        """Return the scores with those of a further contrast in the place of the first contrast's.

        Raises:
            TableError: the scores have no such further contrast.
        """
        if not {column.name for column in of_contrast(contrast)} <= set(self.optional):
            known = ", ".join(contrasts_in(self.optional)) or "none"
            raise TableError(
                f"sample {self.sample_id!r} has no scores for the further contrast {contrast!r}; it has {known}, and "
                "those of the run's first, which are read if no contrast is named: choose one of them, or score the "
                f"dataset again with --contrast …,{contrast}"
            )
        pairs = zip(by_contrast(ASKED), of_contrast(contrast, ASKED), strict=True)
        found = {first.name: self.optional[own.name] for first, own in pairs if own.name in self.optional}
        gap, logprob = (found.pop(column.name) for column in by_contrast())
        return replace(self, logit_gap=gap, logprob_contrast=logprob, optional={**self.optional, **found})

    def __repr__(self) -> str:
        tokens = f"{len(self.token_ids)} token{'' if len(self.token_ids) == 1 else 's'}"
        with np.errstate(invalid="ignore"):
            gaps = self.logprob_gap
        finite = gaps[np.isfinite(gaps)]
        spread = ""
        if len(finite):
            low, high = signed(float(finite.min())), signed(float(finite.max()))
            spread = f", gap {low} nats" if len(finite) == 1 else f", gaps {low} to {high} nats"
        if len(finite) < len(gaps):
            spread += f", {len(gaps) - len(finite)} undefined"
        spread = ", text only" if self.text_only else spread
        text = "" if self.texts is None else f": {_short(' | '.join(self.texts))!r}"
        return f"<TokenScores {self.sample_id!r}, {tokens}{spread}{text}>"

    def _repr_html_(self) -> str | None:
        """Return the texts with each token in the colour of its log-probability gap; None if there are no texts."""
        if self.texts is None:
            return None
        spans = (self.token_turns, self.token_starts, self.token_ends)
        return caption_html(self.texts, *spans, self.logprob_gap, self.is_stop)


_ARRAYS: Final = tuple(
    name
    for name in TokenScores.__dataclass_fields__
    if name not in ("sample_id", "text_hash", "optional", "texts", "text_only")
)


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


Result = TokenScores | Failure
"""The result of scoring one sample: scores, or a failure in the same position."""
