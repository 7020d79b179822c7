"""The methods ``cal`` and ``cal-logprob``: a gap, clamped and averaged over neighbouring tokens."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scorer.types import Float32Array, Int16Array
from scorer.weighting.gaps import logprob_gap
from scorer.weighting.parameters import Parameter, Slider
from scorer.weighting.record import RawScores, WeightingMethod


def clamp_and_pool(
    gap: npt.NDArray[np.floating[Any]], turns: Int16Array, low: float, high: float, window: int, edges: str = "turn"
) -> Float32Array:
    """Clamp ``gap`` to [low, high], then average over a centred window.

    CAL, arXiv 2405.17871, as in the authors' code (foundation-multimodal-models/CAL, ``llava_llama.py``):
    ``avgpool₃(clamp(Δo, 1, 5))``, stride 1, padding not counted. In both forms the stop token is the last of its turn:
    it is in the window of the token before it, and that one is in its own. They differ at the edges of a turn:

    ``turn``: a window never leaves its turn.

    ``paper``: what that code gives for a batch of one conversation. It pools over the whole sequence, so the prompt
    before each turn, and what follows all turns but the last, is in the window. Such positions have no label; the code
    gives them the gap of vocabulary entry 0, which no output stores and which is ``low`` here: for one such position,
    the two differ by at most (high − low) / window. Nothing follows the last stop token. Larger batches also let
    neighbouring samples in, which depends on how they are shuffled and is not modelled.

    Naive form, with ``turn``::

        out[t] = mean(clamp(gap[s]) for s in range(t - window // 2, t + window // 2 + 1) if s is in t's turn)

    Args:
        gap: float [N].
        turns: int16 [N], ascending.
        low, high: clamp bounds, in the unit of ``gap``; 0 ≤ low ≤ high keeps weights usable.
        window: odd, in tokens; 1 leaves the clamped gap unchanged.
        edges: ``turn`` or ``paper``.

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
    if edges == "paper":
        beyond = np.maximum(np.arange(1.0 - len(clamped), 1.0) + float(window // 2), 0)  # after the last token
        unlabelled = window - count - np.where(turns == turns[-1], beyond, 0)
        total += low * unlabelled
        count += unlabelled
    return np.asarray(total / count, dtype=np.float32)


def cal(
    scores: RawScores, *, low: float = 1.0, high: float = 5.0, window: int = 3, edges: str = "turn"
) -> Float32Array:
    """Apply CAL: :func:`clamp_and_pool` on the raw logit gap, bounds and window as published (arXiv 2405.17871)."""
    return clamp_and_pool(scores.logit_gap, scores.token_turns, low, high, window, edges)


def cal_logprob(
    scores: RawScores, *, low: float = 1.0, high: float = 5.0, window: int = 3, edges: str = "turn"
) -> Float32Array:
    """Apply CAL's clamp and pooling to the log-probability gap.

    A shift common to all logits changes the raw logit gap but not this one, since a softmax ignores it. In our
    measurements this gap separates words better, whatever the reason (docs/grounding.md).
    """
    return clamp_and_pool(logprob_gap(scores), scores.token_turns, low, high, window, edges)


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
        Parameter(
            name="edges",
            label="edges",
            meaning="what a window holds beyond its turn",
            type="choice",
            default="turn",
            choices={
                "turn": "nothing: only tokens of the turn are averaged",
                "paper": "the prompt's positions, each at the smallest weight, as in the authors' code on one sample",
            },
        ),
    )


CAL: Final = WeightingMethod(
    name="cal",
    label="CAL, by logit gap",
    words="How far the image moves the token's logit, clamped and averaged over neighbouring tokens.",
    formula="avgpool(clamp(logit_gap, low, high), window), at a turn's ends by edges",
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
    formula="avgpool(clamp(logprob_clean − logprob_contrast, low, high), window), at a turn's ends by edges",
    paper="after CAL, NeurIPS 2024",
    arxiv="2405.17871",
    function=cal_logprob,
    columns=("token_turns", "logprob_clean", "logprob_contrast"),
    parameters=_clamp("nats"),
    ordered=(("low", "high"),),
    bounds=("low", "high"),
)
