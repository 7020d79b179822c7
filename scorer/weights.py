"""Raw scores → token weights. Pure numpy; each formula cites its source.

Raw scores are stored, weights derive from them at any time: one scoring run serves every method here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np

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


def clamp_and_pool(gap: Float32Array, turns: Int16Array, low: float, high: float, window: int) -> Float32Array:
    """Clamp ``gap`` to [low, high], then average over a centred window within each turn.

    CAL, arXiv 2405.17871, section 3.2: ``avgpool₃(clamp(Δo, 1, 5))``, stride 1, padding not counted. The authors'
    code pools over the flattened batch, so that prompt positions and neighbouring samples leak into a caption's
    edges; here a window never leaves its turn.

    Naive form::

        out[t] = mean(clamp(gap[s]) for s in range(t - window // 2, t + window // 2 + 1) if s is in t's turn)

    Args:
        gap: float32 [N].
        turns: int16 [N], ascending.
        low, high: clamp bounds, same unit as ``gap``; 0 ≤ low ≤ high keeps weights usable.
        window: odd, in tokens; 1 leaves the clamped gap as it is.

    Returns:
        float32 [N] in [low, high]; NaN where a gap in the window is NaN.
    """
    clamped = np.clip(gap.astype(np.float64), low, high)
    if window == 1 or len(clamped) == 0:
        return clamped.astype(np.float32)
    half = window // 2
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
    """CAL exactly as published: :func:`clamp_and_pool` of the raw logit gap (arXiv 2405.17871, section 3.2)."""
    return clamp_and_pool(scores.logit_gap, scores.token_turns, low, high, window)


def cal_logprob(scores: RawScores, *, low: float = 1.0, high: float = 5.0, window: int = 3) -> Float32Array:
    """CAL's clamp and pooling fed by the log-probability gap.

    The raw logit gap carries any shift common to all logits, which a softmax ignores; the log-probability gap does
    not (docs/grounding.md has the measurement).
    """
    gap = scores.logprob_clean - scores.logprob_contrast
    return clamp_and_pool(gap, scores.token_turns, low, high, window)


def prior(scores: RawScores, *, alpha: float = 1.0) -> Float32Array:
    """PRIOR, arXiv 2505.08971: w = (1 − P_ref(t))^α, normalised to mean one over the sample (k·w / Σw).

    P_ref is the probability of the token without the picture: ``logprob_contrast``. PRIOR's own reference is a
    text-only language model; the contrast ``removed`` of a VLM is the nearest to it.

    Returns:
        float32 [N] ≥ 0 with mean 1; all ones where every token is certain without the picture (Σw = 0, where the
        formula is 0/0 and no token deserves more than another).
    """
    # 1 - exp(x) loses all digits for x near 0, expm1 keeps them.
    w = np.power(-np.expm1(np.minimum(scores.logprob_contrast.astype(np.float64), 0.0)), alpha)
    total = w.sum()
    if total == 0:
        return np.ones(len(w), dtype=np.float32)
    return np.asarray(len(w) * w / total, dtype=np.float32)


def vig(scores: RawScores, *, threshold: float | None = None, keep: float = 0.7) -> Float32Array:
    """VIG's token selection, arXiv 2602.17186: keep tokens of high visual information gain, drop the rest.

    The gain is ``logprob_clean − logprob_contrast`` in nats (VIG's own contrast is ``blur``). With ``threshold``,
    tokens with gain ≥ threshold are kept; else the ⌈keep · N⌉ tokens of highest gain, earlier tokens first on ties.

    Returns:
        float32 [N] of zeros and ones; a NaN gain is never kept.
    """
    gap = scores.logprob_clean.astype(np.float64) - scores.logprob_contrast
    if threshold is not None:
        return (gap >= threshold).astype(np.float32)
    selected = np.zeros(len(gap), dtype=np.float32)
    count = int(np.ceil(keep * len(gap)))
    best = np.argsort(-gap, kind="stable")[:count]  # NaN sorts last
    selected[best] = 1.0
    selected[np.isnan(gap)] = 0.0
    return selected


METHODS: Final[Mapping[str, Callable[..., Float32Array]]] = {
    "cal": cal,
    "cal-logprob": cal_logprob,
    "prior": prior,
    "vig": vig,
}
DEFAULT_METHOD: Final = "cal"


@dataclass(frozen=True)
class Method:
    """A named method with its parameters, checked when it is made. Call it on raw scores.

    Raises:
        ConfigError: for an unknown name, an unknown parameter, or a value out of range.
    """

    name: str = DEFAULT_METHOD
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise ConfigError(f"unknown weighting method {self.name!r}; known methods: {', '.join(METHODS)}")
        defaults = self._defaults()
        unknown = sorted(set(self.params) - set(defaults))
        if unknown:
            raise ConfigError(
                f"method {self.name!r} has no parameter {', '.join(unknown)}; it has {', '.join(defaults)}"
            )
        _check_params(self.name, {**defaults, **self.params})

    def __call__(self, scores: RawScores) -> Float32Array:
        """float32 [N] weights of one sample."""
        return METHODS[self.name](scores, **self.params)

    def to_dict(self) -> dict[str, Any]:
        """Name and all parameters, defaults filled in: what is recorded beside the weights."""
        return {"name": self.name, "params": {**self._defaults(), **self.params}}

    def _defaults(self) -> dict[str, Any]:
        parameters = inspect.signature(METHODS[self.name]).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _check_params(method: str, params: Mapping[str, Any]) -> None:
    for name, value in params.items():
        if name == "threshold" and value is None:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not np.isfinite(value):
            raise ConfigError(f"method {method!r}: {name} is {value!r}; it must be a finite number")
    window = params.get("window", 1)
    if window != int(window) or window < 1 or window % 2 == 0:
        raise ConfigError(f"method {method!r}: window is {window!r}; it must be an odd number of tokens, 1 or more")
    if not 0 <= params.get("low", 0) <= params.get("high", 0):
        low, high = params["low"], params["high"]
        raise ConfigError(f"method {method!r}: low is {low!r} and high {high!r}; 0 ≤ low ≤ high must hold")
    if params.get("alpha", 0) < 0:
        raise ConfigError(f"method {method!r}: alpha is {params['alpha']!r}; it must be 0 or more")
    if not 0 < params.get("keep", 1) <= 1:
        raise ConfigError(f"method {method!r}: keep is {params['keep']!r}; it must lie in (0, 1]")
