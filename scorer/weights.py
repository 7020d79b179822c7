"""Derive token weights from raw scores, in pure numpy: the formulas, each with its source, and one record per method.

Raw scores are stored and weights can be derived from them at any time, so one scoring run serves every method here. A
weight that depends on a NaN score is NaN, never a plausible number.

A text-only row (no image) trains as if it had no weights: each of its weights is 1, whatever the method, when a run
stores them and when a reader derives them. :func:`weights_of` is where that is decided.

A stop token is a token like any other: it is its last word's neighbour in a window, and counts in a row's mean. The one
exception is a selection (:func:`vig`), which always keeps it.

To add a method, write its function and its record here, list the record in :data:`METHODS`, and port the function to
the page's ``weights.js``. :class:`Method` checks the ranges of parameters once; the functions do not check them again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scorer.columns import IS_STOP, LOGPROB_TEXT
from scorer.errors import ConfigError, TableError
from scorer.types import Float32Array, Int16Array
from scorer.weighting.grounded import GROUNDED, grounded
from scorer.weighting.parameters import Parameter, Slider
from scorer.weighting.record import RawScores, WeightingMethod

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "Method",
    "RawScores",
    "WeightingMethod",
    "cal",
    "cal_logprob",
    "clamp_and_pool",
    "grounded",
    "prior",
    "vig",
    "weights_of",
]


def weights_of(function: Callable[[RawScores], Float32Array], scores: RawScores) -> Float32Array:
    """Return the weights of one sample, float32 [N]: those of ``function``, or 1 for each token of a text-only one."""
    if getattr(scores, "text_only", False):
        return np.ones(len(scores.token_turns), dtype=np.float32)
    return np.asarray(function(scores), dtype=np.float32)


def clamp_and_pool(
    gap: npt.NDArray[np.floating[Any]], turns: Int16Array, low: float, high: float, window: int
) -> Float32Array:
    """Clamp ``gap`` to [low, high], then average over a centred window within each turn.

    CAL, arXiv 2405.17871, as in the authors' code (foundation-multimodal-models/CAL, ``llava_llama.py``):
    ``avgpool₃(clamp(Δo, 1, 5))``, stride 1, padding not counted. That code pools over the flattened batch, including
    prompt positions and neighbouring samples (an unlabelled position contributes the gap of vocabulary entry 0), which
    leaks into a caption's edges. Here a window never leaves its turn; inside a turn the two are equal. As in that code,
    the stop token is the last of its turn: it is in the window of the token before it, and that one is in its own.

    Naive form::

        out[t] = mean(clamp(gap[s]) for s in range(t - window // 2, t + window // 2 + 1) if s is in t's turn)

    Args:
        gap: float [N].
        turns: int16 [N], ascending.
        low, high: clamp bounds, in the unit of ``gap``; 0 ≤ low ≤ high keeps weights usable.
        window: odd, in tokens; 1 leaves the clamped gap unchanged.

    Returns:
        float32 [N] in [low, high]; NaN if any gap in the window is NaN.
    """
    clamped = np.clip(gap.astype(np.float64), low, high)
    if window == 1 or len(clamped) == 0:
        return clamped.astype(np.float32)
    half = min(window // 2, len(clamped) - 1)  # a wider window reaches nothing more
    total = np.zeros_like(clamped)
    count = np.zeros_like(clamped)
    for shift in range(-half, half + 1):
        # neighbour at t + shift, if both positions exist and share a turn
        here = slice(max(0, -shift), len(clamped) - max(0, shift))
        there = slice(max(0, shift), len(clamped) - max(0, -shift))
        if here.start >= here.stop:
            continue
        same = turns[here] == turns[there]
        total[here] += np.where(same, clamped[there], 0.0)
        count[here] += same
    return np.asarray(total / count, dtype=np.float32)


def cal(scores: RawScores, *, low: float = 1.0, high: float = 5.0, window: int = 3) -> Float32Array:
    """Apply CAL: :func:`clamp_and_pool` on the raw logit gap, bounds and window as published (arXiv 2405.17871)."""
    return clamp_and_pool(scores.logit_gap, scores.token_turns, low, high, window)


def cal_logprob(scores: RawScores, *, low: float = 1.0, high: float = 5.0, window: int = 3) -> Float32Array:
    """Apply CAL's clamp and pooling to the log-probability gap.

    A shift common to all logits changes the raw logit gap but not this one, since a softmax ignores it. In our
    measurements this gap separates words better, whatever the reason (docs/grounding.md).
    """
    return clamp_and_pool(_logprob_gap(scores), scores.token_turns, low, high, window)


def prior(scores: RawScores, *, alpha: float = 1.0) -> Float32Array:
    """Apply PRIOR, arXiv 2505.08971: w = (1 − P_ref(t))^α, normalised to a mean of 1 over the sample (k·w / Σw).

    P_ref is the token's probability by a language model trained on the captions, as in PRIOR, where a reader has joined
    one (:data:`scorer.columns.LOGPROB_TEXT`). Elsewhere it is the token's probability without the image,
    ``logprob_contrast``; the closest contrast of a VLM is ``removed``.

    Returns:
        float32 [N] ≥ 0 with mean 1; all ones if every token is certain without the image (then Σw = 0, the formula is
        0/0, and no token deserves more than another). One NaN makes the whole sample NaN: its Σw is unknown. A stop
        token that the joined text reference does not know has weight 1, the mean, and does not count among the others.
    """
    text = scores.optional.get(LOGPROB_TEXT)
    if text is None:
        return _prior(scores.logprob_contrast, alpha)
    known = ~(np.isnan(text) & np.asarray(scores.optional.get(IS_STOP, False), np.bool_))
    weights = np.ones(len(text), np.float32)
    weights[known] = _prior(text[known], alpha)
    return weights


def _prior(logprobs: npt.NDArray[Any], alpha: float) -> Float32Array:
    """Return the weights of tokens with these reference log-probabilities, [N], in nats; their mean is 1."""
    # 1 - exp(x) loses all digits for x near 0; expm1 keeps them. Rounding can push a log-probability above 0.
    surprise = -np.expm1(np.minimum(logprobs.astype(np.float64), 0.0))
    largest = surprise.max(initial=0.0)
    if largest == 0:
        return np.ones(len(surprise), dtype=np.float32)
    w = np.power(surprise / largest, alpha)  # scaled, so that a large α cannot turn every weight into 0
    return np.asarray(len(w) * w / w.sum(), dtype=np.float32)


def vig(scores: RawScores, *, threshold: float | None = None, keep: float = 0.7) -> Float32Array:
    """Apply VIG's token selection, arXiv 2602.17186: keep tokens with high visual information gain, drop the rest.

    The gain is ``logprob_clean − logprob_contrast`` in nats, the logarithm of the factor by which the image lowers
    the token's perplexity (VIG's own contrast is ``blur``). With ``threshold``, keep the tokens with gain ≥ threshold;
    without it, keep the ⌈keep · n⌉ tokens with the highest gain among the n whose gain is defined, earlier tokens first
    on ties. VIG also selects whole samples, which is not done here.

    A stop token is always kept, and is none of the n: what ends a text depends little on the image, and a model that is
    trained on rows without it does not learn to stop. So the other tokens' weights are the same with and without it.

    Returns:
        float32 [N] of zeros and ones; NaN where the gain is NaN.
    """
    gap = _logprob_gap(scores)
    known = ~np.isnan(gap)
    stop = np.asarray(scores.optional.get(IS_STOP, np.zeros(len(gap), dtype=np.bool_)))
    defined = known & ~stop
    if threshold is None:
        # A fraction, because 0.07 * 100 exceeds 7 in floating point and would round up to 8.
        count = math.ceil(Fraction(repr(float(keep))) * int(defined.sum()))
        kept = np.zeros(len(gap), dtype=np.bool_)
        kept[np.argsort(np.where(defined, -gap, np.nan), kind="stable")[:count]] = True  # NaN sorts last
    else:
        kept = gap >= threshold
    return np.where(known, kept | stop, np.nan).astype(np.float32)


def _logprob_gap(scores: RawScores) -> npt.NDArray[np.float64]:
    """Return the log-probability gap, float64 [N], in nats; NaN where both are −∞."""
    with np.errstate(invalid="ignore"):
        return scores.logprob_clean.astype(np.float64) - scores.logprob_contrast.astype(np.float64)


def _clamp(unit: str) -> tuple[Parameter, ...]:
    """Return the parameters of :func:`clamp_and_pool` for a gap in this unit."""
    slider = Slider(0, 10, 0.1)
    return (
        Parameter(
            name="low",
            label="clamp from",
            meaning="the smallest weight; smaller gaps are raised to it",
            type="float",
            default=1.0,
            unit=unit,
            minimum=0,
            slider=slider,
        ),
        Parameter(
            name="high",
            label="to",
            meaning="the largest weight; larger gaps are lowered to it",
            type="float",
            default=5.0,
            unit=unit,
            minimum=0,
            slider=slider,
        ),
        Parameter(
            name="window",
            label="window",
            meaning="how many neighbouring tokens are averaged; 1 turns averaging off",
            type="int",
            default=3,
            unit="tokens",
            minimum=1,
            odd=True,
            slider=Slider(1, 15, 2),
        ),
    )


CAL: Final = WeightingMethod(
    name="cal",
    label="CAL, by logit gap",
    words="How far the image moves the token's logit, clamped and averaged over neighbouring tokens.",
    formula="avgpool(clamp(logit_gap, low, high), window), pooled within one turn",
    paper="CAL, NeurIPS 2024",
    arxiv="2405.17871",
    function=cal,
    columns=("token_turns", "logit_gap"),
    parameters=_clamp("logits"),
    ordered=(("low", "high"),),
    bounds=("low", "high"),
)
CAL_LOGPROB: Final = WeightingMethod(
    name="cal-logprob",
    label="CAL, by gap",
    words="How far the image moves the token's log-probability, clamped and averaged as in CAL.",
    formula="avgpool(clamp(logprob_clean − logprob_contrast, low, high), window), pooled within one turn",
    paper="after CAL, NeurIPS 2024",
    arxiv="2405.17871",
    function=cal_logprob,
    columns=("token_turns", "logprob_clean", "logprob_contrast"),
    parameters=_clamp("nats"),
    ordered=(("low", "high"),),
    bounds=("low", "high"),
)
PRIOR: Final = WeightingMethod(
    name="prior",
    label="PRIOR, by surprise",
    words="How unexpected the token is without the image, or to a language model trained on the captions; the weights "
    "of a row have a mean of 1.",
    formula="(1 − exp(logprob_contrast))^alpha, normalised to mean 1 over the row",
    paper="PRIOR, 2025",
    arxiv="2505.08971",
    function=prior,
    columns=("logprob_contrast",),
    text_reference=True,
    parameters=(
        Parameter(
            name="alpha",
            label="α",
            meaning="the exponent; 0 weights all tokens equally, higher values favour surprising tokens more",
            type="float",
            default=1.0,
            minimum=0,
            slider=Slider(0, 5, 0.1),
        ),
    ),
    whole_row=True,
)
VIG: Final = WeightingMethod(
    name="vig",
    label="VIG, keep or drop",
    words="Keeps the tokens whose probability the image raises most, and drops the others.",
    formula="1 if logprob_clean − logprob_contrast ≥ threshold, or without one if in the row's top share keep; else 0; "
    "1 for a stop token",
    paper="VIG, 2026",
    arxiv="2602.17186",
    function=vig,
    columns=("logprob_clean", "logprob_contrast"),
    if_given=(IS_STOP,),
    parameters=(
        Parameter(
            name="threshold",
            label="gap from",
            meaning="the smallest gap of a kept token; with null, keep decides",
            type="float",
            default=None,
            unit="nats",
            nullable=True,
            overrides="keep",
            slider=Slider(-2, 5, 0.05, start=0.5),
        ),
        Parameter(
            name="keep",
            label="top",
            meaning="the share of the row's tokens to keep, those with the largest gaps",
            type="float",
            default=0.7,
            unit="share",
            exclusive_minimum=0,
            maximum=1,
            slider=Slider(0.01, 1, 0.01),
        ),
    ),
    binary=True,
    whole_row=True,
)

METHODS: Final[Mapping[str, WeightingMethod]] = {
    method.name: method for method in (CAL, CAL_LOGPROB, PRIOR, VIG, GROUNDED)
}
DEFAULT_METHOD: Final = CAL.name


@dataclass(frozen=True)
class Method:
    """A named method with all its parameters, checked on construction. Call it on raw scores.

    Two methods are equal if they compute the same weights: parameters that are not given take their defaults.

    Raises:
        ConfigError: the name or a parameter is unknown, or a value has the wrong type or is out of range.
    """

    name: str = DEFAULT_METHOD
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name not in METHODS:
            raise ConfigError(f"unknown weighting method {self.name!r}; known methods: {', '.join(METHODS)}")
        object.__setattr__(self, "params", self.record.check(self.params))

    @property
    def record(self) -> WeightingMethod:
        """The method's record."""
        return METHODS[self.name]

    def __call__(self, scores: RawScores) -> Float32Array:
        """Return the weights of one sample, float32 [N]. Raises TableError if the method reads a missing column."""
        optional = getattr(scores, "optional", {})
        self.check_columns([name for name in self.record.columns if name in optional or hasattr(scores, name)])
        return weights_of(partial(self.record.function, **self.params), scores)

    def check_columns(self, columns: Collection[str], where: str = "the output") -> None:
        """Check that every column that the method reads is present.

        Args:
            columns: names of the columns that are present.
            where: what is being checked, for the message.

        Raises:
            TableError: a column is missing; the message names all that are.
        """
        absent = [name for name in self.record.columns if name not in columns]
        if absent:
            raise TableError(
                f"{where} has no {', '.join(absent)}, which the method {self.name!r} reads; score the dataset again "
                "so that it has them, or choose another method"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the name and all parameters as plain data, as recorded with the weights."""
        return {"name": self.name, "params": dict(self.params)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Method:
        """Build the method from :meth:`to_dict`'s output. Raises ConfigError, as the constructor does."""
        return cls(document.get("name", ""), document.get("params", {}))
