"""Ask whether the image favours a caption's own word over another that could stand in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from scorer.assessment.word_swaps import ScoredText, Swap, find_swaps
from scorer.display.words import word_spans
from scorer.results import Result, TokenScores
from scorer.statistics import Estimate, Numbers, auroc, bootstrap
from scorer.types import Sample, Turn

QUARTERS: Final = 4


@dataclass(frozen=True, slots=True)
class Example:
    """A swap and what the model made of it: the log-probability gaps of both words, in nats."""

    sample_id: str
    own: str
    other: str
    own_gap: float
    other_gap: float


@dataclass(frozen=True, slots=True)
class WordSwaps:
    """Whether the caption's own word is told from another in the same place, each an area under the curve.

    Attributes:
        image: by log P(word | image, text so far).
        language: by log P(word | contrast, text so far): what text alone knows.
        gap: by the difference of the two: what the image adds.
        prior: the share of swaps in which text alone ranks the own word above the other (the language prior that
            VLind-Bench asks for: Lee et al. 2024, arXiv 2406.08702).
        prior_by_quarter: the same for the quarters of the own words by their probability from text alone, rarest first.
        examples: the swaps, those with the largest difference of gaps first.
    """

    image: Estimate
    language: Estimate
    gap: Estimate
    prior: Estimate
    prior_by_quarter: tuple[float, ...]
    examples: tuple[Example, ...]


def swapped_samples(samples: Sequence[Sample], scored: Sequence[Result], seed: int) -> tuple[list[Swap], list[Sample]]:
    """Return the swaps of the rows that have one, and the samples with the swapped texts, in the same order."""
    texts = [
        ScoredText(i, turn, text, tuple(word_spans(text, *_spans(result, turn))))
        for i, (sample, result) in enumerate(zip(samples, scored, strict=True))
        if isinstance(result, TokenScores) and not result.text_only
        for turn, text in enumerate(sample.scored_texts)
        if len(_assistant(sample)[turn].content) == 1
    ]
    swaps = find_swaps(texts, seed)
    return swaps, [_replaced(samples[swap.source.row], swap) for swap in swaps]


def compare_words(swaps: Sequence[Swap], scored: Sequence[Result], rescored: Sequence[Result], seed: int) -> WordSwaps:
    """Compare the words of the rows ``scored`` with those of the swapped rows ``rescored``, one for each swap.

    A word's log-probability is the sum over its tokens. Swaps whose row failed with the other word are left out.
    """
    rows: list[tuple[float, float, float, float]] = []
    examples = []
    for swap, second in zip(swaps, rescored, strict=True):
        first = scored[swap.source.row]
        if not isinstance(first, TokenScores) or not isinstance(second, TokenScores):
            continue
        turn, word = swap.source.turn, swap.word
        end = word.start + len(swap.other.encode())
        own, other = _word(first, turn, word.start, word.end), _word(second, turn, word.start, end)
        rows.append((*own, *other))
        examples.append(Example(first.sample_id, word.text, swap.other, own[0] - own[1], other[0] - other[1]))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4)
    own_clean, own_text, other_clean, other_text = columns.T

    def area(own: Numbers, other: Numbers) -> Estimate:
        return bootstrap(len(own), lambda chosen: auroc(own[chosen], other[chosen]), seed=seed)

    ahead = (own_text > other_text) + 0.5 * (own_text == other_text)

    def share(chosen: npt.NDArray[np.int64]) -> float:
        return float(ahead[chosen].mean())

    quarters = np.array_split(np.argsort(own_text, kind="stable"), QUARTERS) if len(ahead) >= QUARTERS else []
    return WordSwaps(
        image=area(own_clean, other_clean),
        language=area(own_text, other_text),
        gap=area(own_clean - own_text, other_clean - other_text),
        prior=bootstrap(len(ahead), share, seed=seed),
        prior_by_quarter=tuple(share(quarter) for quarter in quarters),
        examples=tuple(sorted(examples, key=lambda one: one.other_gap - one.own_gap)),
    )


def _spans(scores: TokenScores, turn: int) -> tuple[np.ndarray, np.ndarray]:
    own = (scores.token_turns == turn) & ~scores.is_stop
    return scores.token_starts[own], scores.token_ends[own]


def _word(scores: TokenScores, turn: int, start: int, end: int) -> tuple[float, float]:
    """Return the log-probabilities of the bytes from ``start`` to ``end``, with the image and with the contrast."""
    own = (scores.token_turns == turn) & (scores.token_starts < end) & (scores.token_ends > start)
    clean, contrast = scores.logprob_clean[own], scores.logprob_contrast[own]
    return float(clean.sum(dtype=np.float64)), float(contrast.sum(dtype=np.float64))


def _assistant(sample: Sample) -> list[Turn]:
    return [turn for turn in sample.turns if turn.role == "assistant"]


def _replaced(sample: Sample, swap: Swap) -> Sample:
    """Return the sample with the swapped text in its turn."""
    number = -1
    turns = []
    for turn in sample.turns:
        number += turn.role == "assistant"
        mine = turn.role == "assistant" and number == swap.source.turn
        turns.append(replace(turn, content=(swap.text,)) if mine else turn)
    return replace(sample, turns=tuple(turns))
