"""Raw scores → token weights, pure numpy: the formulas, each with its source, and one record for each method.

Raw scores are stored, weights derive from them at any time: one scoring run serves every method here. A weight that
depends on a NaN score is NaN, never a plausible number.

To add a method: its function and its record here, in :data:`METHODS`, and its port in the page's ``weights.js``.
Ranges of parameters are checked by :class:`Method`, once; the functions take them as they are.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scorer.errors import ConfigError, TableError
from scorer.types import Float32Array, Int16Array
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
    "prior",
    "vig",
]


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


def _clamp(unit: str) -> tuple[Parameter, ...]:
    """The parameters of :func:`clamp_and_pool` over a gap in this unit."""
    slider = Slider(0, 10, 0.1)
    return (
        Parameter(
            name="low",
            label="clamp from",
            meaning="the least weight; smaller gaps count as this",
            type="float",
            default=1.0,
            unit=unit,
            minimum=0,
            slider=slider,
        ),
        Parameter(
            name="high",
            label="to",
            meaning="the greatest weight; larger gaps count as this",
            type="float",
            default=5.0,
            unit=unit,
            minimum=0,
            slider=slider,
        ),
        Parameter(
            name="window",
            label="window",
            meaning="how many neighbouring tokens are averaged; 1 averages none",
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
    words="How far the image moves the token's logit, clamped, and averaged with its neighbours.",
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
    words="CAL's clamp and average, of how far the image moves the token's log-probability.",
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
    words="How little the token is expected without the image; the row's weights have the mean 1.",
    formula="(1 − exp(logprob_contrast))^alpha, normalised to mean 1 over the row",
    paper="PRIOR, 2025",
    arxiv="2505.08971",
    function=prior,
    columns=("logprob_contrast",),
    parameters=(
        Parameter(
            name="alpha",
            label="α",
            meaning="the exponent; 0 weighs all tokens alike, more prefers surprising ones more",
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
    words="Keeps the tokens that the image makes likelier most, and drops the others.",
    formula="1 if logprob_clean − logprob_contrast ≥ threshold, or without one if in the row's top share keep; else 0",
    paper="VIG, 2026",
    arxiv="2602.17186",
    function=vig,
    columns=("logprob_clean", "logprob_contrast"),
    parameters=(
        Parameter(
            name="threshold",
            label="gap from",
            meaning="the least gap of a token that is kept; null: keep decides",
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
            meaning="the share of the row's tokens that is kept, those of the highest gap",
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

METHODS: Final[Mapping[str, WeightingMethod]] = {method.name: method for method in (CAL, CAL_LOGPROB, PRIOR, VIG)}
DEFAULT_METHOD: Final = CAL.name


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
        object.__setattr__(self, "params", self.record.check(self.params))

    @property
    def record(self) -> WeightingMethod:
        """What the method says about itself."""
        return METHODS[self.name]

    def __call__(self, scores: RawScores) -> Float32Array:
        """float32 [N] weights of one sample. Raises TableError where a column is absent that the method reads."""
        optional = getattr(scores, "optional", {})
        self.check_columns([name for name in self.record.columns if name in optional or hasattr(scores, name)])
        return self.record.function(scores, **self.params)

    def check_columns(self, columns: Collection[str], where: str = "the output") -> None:
        """Refuse scores without a column that the method reads.

        Args:
            columns: names of those that are there.
            where: what lacks a column, in the message.

        Raises:
            TableError: naming the columns that are absent.
        """
        absent = [name for name in self.record.columns if name not in columns]
        if absent:
            raise TableError(
                f"{where} has no {', '.join(absent)}, which the method {self.name!r} reads; score the dataset again "
                "with what is absent, or choose another method"
            )

    def to_dict(self) -> dict[str, Any]:
        """Name and all parameters as plain data: what is recorded beside the weights."""
        return {"name": self.name, "params": dict(self.params)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Method:
        """Back from :meth:`to_dict`. Raises ConfigError as the constructor does."""
        return cls(document.get("name", ""), document.get("params", {}))
