"""What scoring gives for a sample: its tokens' raw scores, or the failure that takes their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from scorer.display.html import caption_html
from scorer.display.levels import signed
from scorer.errors import FailureCode
from scorer.types import Float32Array, Int16Array, Int32Array


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that could not be scored, and why. Never dropped: it becomes a row with null lists.

    Attributes:
        message: for people; what it quotes of the row and is not valid Unicode is escaped, so that it can be stored.
    """

    sample_id: str
    code: FailureCode
    message: str

    def __post_init__(self) -> None:
        # Data may spell half a surrogate pair, and a message quotes data.
        object.__setattr__(self, "message", self.message.encode("utf-8", "backslashreplace").decode())


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TokenScores:
    """Raw scores of one sample's scored tokens; every array has length N, and the name and type of its column.

    Attributes:
        token_ids, token_starts, token_ends, token_turns, text_hash: as in :class:`EncodedSample`.
        logit_gap: float32 [N], logit of the label given the image minus given the contrast input (CAL's Δo).
        logprob_clean, logprob_contrast: float32 [N], natural-log probability of the label under each.
        texts: the scored turns' texts, for people; None where only spans are known (they are in no published file).
        optional: the optional columns (:mod:`scorer.columns`) that the run has, by name; [N] each.
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

    @classmethod
    def from_arrays(cls, sample_id: str, text_hash: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Build scores from arrays by column name; those without an attribute become ``optional``."""
        own: Mapping[str, Any] = arrays
        optional: dict[str, npt.NDArray[Any]] = {}
        if len(arrays) > len(_ARRAYS):
            own = {name: arrays[name] for name in _ARRAYS}
            optional = {name: array for name, array in arrays.items() if name not in own}
        return cls(sample_id=sample_id, text_hash=text_hash, optional=optional, **own)

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Every array by the name of its column."""
        return {**{name: getattr(self, name) for name in _ARRAYS}, **self.optional}

    @property
    def logprob_gap(self) -> Float32Array:
        """float32 [N], nats: log-probability of the label given the image minus given the contrast input."""
        return self.logprob_clean - self.logprob_contrast

    def __repr__(self) -> str:
        tokens = f"{len(self.token_ids)} token{'' if len(self.token_ids) == 1 else 's'}"
        gaps = self.logprob_gap[np.isfinite(self.logprob_gap)]
        spread = f", gaps {signed(float(gaps.min()))} to {signed(float(gaps.max()))} nats" if len(gaps) else ""
        text = "" if self.texts is None else f": {_short(' | '.join(self.texts))!r}"
        return f"<TokenScores {self.sample_id!r}, {tokens}{spread}{text}>"

    def _repr_html_(self) -> str | None:
        """The texts with each token on the colour of its log-probability gap; None, for a plain repr, without texts."""
        if self.texts is None:
            return None
        return caption_html(self.texts, self.token_turns, self.token_starts, self.token_ends, self.logprob_gap)


_ARRAYS: Final = tuple(
    name for name in TokenScores.__dataclass_fields__ if name not in ("sample_id", "text_hash", "optional", "texts")
)


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


Result = TokenScores | Failure
"""What scoring one sample gives: scores, or the failure that takes their place in the same position."""
