"""Raw scores → token weights. Pure numpy; each formula cites its source.

Raw scores are stored, weights derive from them at any time: one scoring run serves every method here. A weight that
depends on a NaN score is NaN, never a plausible number.

Ranges of parameters are checked by :class:`Method`, once; the functions take them as they are.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from scorer.errors import ConfigError
from scorer.types import Float32Array, Int16Array


class RawScores(Protocol):
    """What a method may read of one sample: arrays of length N. ``TokenScores`` and table rows both fit."""

    @property
    def token_turns(self) -> Int16Array: ...
    @property
    def logit_gap(self) -> Float32Array: ...
    @property
    def logprob_clean(self) -> Float32Array: ...
    @property
    def logprob_contrast(self) -> Float32Array: ...


def clamp_and_pool(
    gap: npt.NDArray[np.floating[Any]], turns: Int16Array, low: float, high: float, window: int
) -> Float32Array:
    """Clamp ``gap`` to [low, high], then average over a centred window within each turn.

    CAL, arXiv 2405.17871, as in the authors' code (foundation-multimodal-models/CAL, ``llava_llama.py``):
    ``avgpool₃(clamp(Δo, 1, 5))``, stride 1, padding not counted. That code pools over the flattened batch, prompt
    positions and neighbouring samples included (an unlabelled position brings the gap of vocabulary entry 0), which
    leaks into a caption's edges; here a window never leaves its turn. Inside a turn the two are equal.

    Naive form::

        out[t] = mean(clamp(gap[s]) for s in range(t - window // 2, t + window // 2 + 1) if s is in t's turn)

    Args:
        gap: float [N].
        turns: int16 [N], ascending.
        low, high: clamp bounds, same unit as ``gap``; 0 ≤ low ≤ high keeps weights usable.
        window: odd, in tokens; 1 leaves the clamped gap as it is.

    Returns:
        float32 [N] in [low, high]; NaN where a gap in the window is NaN.
    """
    clamped = np.clip(gap.astype(np.float64), low, high)
    if window == 1 or len(clamped) == 0:
        return clamped.astype(np.float32)
    half = min(window // 2, len(clamped) - 1)  # beyond that there is nothing more to reach
    total = np.zeros_like(clamped)
    count = np.zeros_like(clamped)
    for shift in range(-half, half + 1):
        # neighbour at t + shift, where both positions exist and share a turn
        here = slice(max(0, -shift), len(clamped) - max(0, shift))
        there = slice(max(0, shift), len(clamped) - max(0, -shift))
        if here.start >= here.stop:
            continue
        same = turns[here] == turns[there]
        total[here] += np.where(same, clamped[there], 0.0)
        count[here] += same
    return np.asarray(total / count, dtype=np.float32)


def cal(scores: RawScores, *, low: float = 1.0, high: float = 5.0, window: int = 3) -> Float32Array:
    """CAL: :func:`clamp_and_pool` of the raw logit gap, bounds and window as published (arXiv 2405.17871)."""
    return clamp_and_pool(scores.logit_gap, scores.token_turns, low, high, window)


def cal_logprob(scores: RawScores, *, low: float = 1.0, high: float = 5.0, window: int = 3) -> Float32Array:
    """CAL's clamp and pooling fed by the log-probability gap.

    A shift common to all logits moves the raw logit gap and not this one, since a softmax ignores it. Measured, this
    gap separates words better, whatever the reason (docs/grounding.md).
    """
    return clamp_and_pool(_logprob_gap(scores), scores.token_turns, low, high, window)


def prior(scores: RawScores, *, alpha: float = 1.0) -> Float32Array:
    """PRIOR, arXiv 2505.08971: w = (1 − P_ref(t))^α, normalised to mean one over the sample (k·w / Σw).

    P_ref is the probability of the token without the picture: ``logprob_contrast``. PRIOR's own reference is a
    text-only language model trained on the captions; the contrast ``removed`` of a VLM is the nearest to it.

    Returns:
        float32 [N] ≥ 0 with mean 1; all ones where every token is certain without the picture (Σw = 0, where the
        formula is 0/0 and no token deserves more than another). One NaN makes the whole sample NaN: its Σw is unknown.
    """
    # 1 - exp(x) loses all digits for x near 0, expm1 keeps them. Rounding can push a log-probability above 0.
    surprise = -np.expm1(np.minimum(scores.logprob_contrast.astype(np.float64), 0.0))
    largest = surprise.max(initial=0.0)
    if largest == 0:
        return np.ones(len(surprise), dtype=np.float32)
    w = np.power(surprise / largest, alpha)  # scaled, so that a large α cannot turn every weight into 0
    return np.asarray(len(w) * w / w.sum(), dtype=np.float32)


def vig(scores: RawScores, *, threshold: float | None = None, keep: float = 0.7) -> Float32Array:
    """VIG's token selection, arXiv 2602.17186: keep tokens of high visual information gain, drop the rest.

    The gain is ``logprob_clean − logprob_contrast`` in nats, the logarithm of the factor by which the picture lowers
    the token's perplexity (VIG's own contrast is ``blur``). With ``threshold``, tokens with gain ≥ threshold are kept;
    else the ⌈keep · n⌉ tokens of highest gain among the n whose gain is defined, earlier tokens first on ties.
    VIG selects whole samples as well, which is left to the reader.

    Returns:
        float32 [N] of zeros and ones; NaN where the gain is NaN.
    """
    gap = _logprob_gap(scores)
    defined = ~np.isnan(gap)
    if threshold is None:
        # As a fraction, because 0.07 * 100 is above 7 in floating point and its ceiling is 8.
        count = math.ceil(Fraction(repr(float(keep))) * int(defined.sum()))
        kept = np.zeros(len(gap), dtype=np.bool_)
        kept[np.argsort(-gap, kind="stable")[:count]] = True  # NaN sorts last
    else:
        kept = gap >= threshold
    return np.where(defined, kept, np.nan).astype(np.float32)


def _logprob_gap(scores: RawScores) -> npt.NDArray[np.float64]:
    """float64 [N], nats; NaN where both are −∞."""
    with np.errstate(invalid="ignore"):
        return scores.logprob_clean.astype(np.float64) - scores.logprob_contrast.astype(np.float64)


METHODS: Final[Mapping[str, Callable[..., Float32Array]]] = {
    "cal": cal,
    "cal-logprob": cal_logprob,
    "prior": prior,
    "vig": vig,
}
DEFAULT_METHOD: Final = "cal"


@dataclass(frozen=True)
class Method:
    """A named method with all its parameters, checked when it is made. Call it on raw scores.

    Two methods are equal when they compute the same: parameters that were not given hold their defaults.

    Raises:
        ConfigError: for an unknown name, an unknown parameter, or a value of the wrong type or out of range.
    """

    name: str = DEFAULT_METHOD
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name not in METHODS:
            raise ConfigError(f"unknown weighting method {self.name!r}; known methods: {', '.join(METHODS)}")
        parameters = inspect.signature(METHODS[self.name]).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        if not isinstance(self.params, Mapping):
            raise ConfigError(f"method {self.name!r}: parameters are {self.params!r}; give a mapping of name to value")
        unknown = sorted(str(name) for name in set(self.params) - set(defaults))
        if unknown:
            raise ConfigError(
                f"method {self.name!r} has no parameter {', '.join(unknown)}; it has {', '.join(defaults)}"
            )
        params = {name: _number(self.name, name, value) for name, value in {**defaults, **self.params}.items()}
        _check_ranges(self.name, params)
        object.__setattr__(self, "params", params)

    def __call__(self, scores: RawScores) -> Float32Array:
        """float32 [N] weights of one sample."""
        return METHODS[self.name](scores, **self.params)

    def to_dict(self) -> dict[str, Any]:
        """Name and all parameters as plain data: what is recorded beside the weights."""
        return {"name": self.name, "params": dict(self.params)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Method:
        """Back from :meth:`to_dict`. Raises ConfigError as the constructor does."""
        return cls(document.get("name", ""), document.get("params", {}))


def _number(method: str, name: str, value: Any) -> int | float | None:
    """The value in one canonical type, so that 1 and 1.0 give one fingerprint."""
    if name == "threshold" and value is None:
        return None
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not abs(value) <= sys.float_info.max:  # math.isfinite raises on an integer beyond it
        raise ConfigError(f"method {method!r}: {name} is {value!r}; it must be a finite number")
    return int(value) if name == "window" and int(value) == value else float(value)


def _check_ranges(method: str, params: Mapping[str, Any]) -> None:
    window = params.get("window", 1)
    if window < 1 or window % 2 != 1:
        raise ConfigError(f"method {method!r}: window is {window!r}; it must be an odd number of tokens, 1 or more")
    if not 0 <= params.get("low", 0) <= params.get("high", 0):
        low, high = params["low"], params["high"]
        raise ConfigError(f"method {method!r}: low is {low!r} and high {high!r}; 0 ≤ low ≤ high must hold")
    if params.get("alpha", 0) < 0:
        raise ConfigError(f"method {method!r}: alpha is {params['alpha']!r}; it must be 0 or more")
    if not 0 < params.get("keep", 1) <= 1:
        raise ConfigError(f"method {method!r}: keep is {params['keep']!r}; it must lie in (0, 1]")
