"""Ask whether the reference model can read the texts at all: how surprised it is, and how it cuts them up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scorer.display.token_runs import inside_character
from scorer.display.words import word_spans
from scorer.results import Result, TokenScores
from scorer.statistics import Estimate, bootstrap


@dataclass(frozen=True, slots=True)
class Reading:
    """How well the model reads the texts, with their images where they have some.

    Attributes:
        perplexity: e to the mean surprise of a token, in nats, without stop tokens.
        bits_per_byte: the same surprise for each byte of text, which does not depend on the tokenizer.
        pieces: the share of tokens that are unknown, or only a part of a character: bytes of a script that the
            tokenizer does not have.
        tokens_per_word: tokens for each word; in scripts without spaces, for each character.
    """

    perplexity: Estimate
    bits_per_byte: Estimate
    pieces: Estimate
    tokens_per_word: Estimate


def read_texts(
    texts: Sequence[Sequence[str]], scored: Sequence[Result], unknown_id: int | None, seed: int = 0
) -> Reading:
    """Measure rows from their scored texts, one sequence of turns a row, and their scores.

    Args:
        unknown_id: the tokenizer's id for what it does not know; None if it has none.
    """
    counts: list[tuple[float, int, int, int, int]] = []
    for turns, result in zip(texts, scored, strict=True):
        if not isinstance(result, TokenScores):
            continue
        words = ~result.is_stop
        # Without images, only the contrast's scores exist, those of the text alone.
        logprobs = (result.logprob_contrast if result.text_only else result.logprob_clean)[words]
        if not len(logprobs) or not np.isfinite(logprobs).all():
            continue
        starts, ends = result.token_starts[words], result.token_ends[words]
        pieces = units = size = 0
        for turn, text in enumerate(turns):
            own = result.token_turns[words] == turn
            data = text.encode()
            edges = zip(starts[own].tolist(), ends[own].tolist(), strict=True)
            inside = [inside_character(data, start) or inside_character(data, end) for start, end in edges]
            unknown = result.token_ids[words][own] == (-1 if unknown_id is None else unknown_id)
            pieces += int((np.array(inside, dtype=bool) | unknown).sum())
            seen = data[: int(ends[own].max(initial=0))].decode(errors="ignore")  # the rest may not have been scored
            units += len(word_spans(seen, *_characters(seen)))
            size += len(seen.encode())
        counts.append((float(-logprobs.sum(dtype=np.float64)), len(logprobs), pieces, max(1, units), size))
    nats, tokens, pieces_, units_, sizes = np.array(counts, dtype=np.float64).reshape(-1, 5).T

    def ratio(above: np.ndarray, below: np.ndarray) -> Estimate:
        return bootstrap(len(above), lambda rows: float(above[rows].sum() / below[rows].sum()), seed=seed)

    surprise = ratio(nats, tokens)
    return Reading(
        perplexity=Estimate(_exp(surprise.value), _exp(surprise.low), _exp(surprise.high), surprise.count),
        bits_per_byte=ratio(nats / math.log(2), sizes),
        pieces=ratio(pieces_, tokens),
        tokens_per_word=ratio(tokens, units_),
    )


def _characters(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the byte spans of the characters, int32 [N] each."""
    ends = np.cumsum([len(character.encode()) for character in text], dtype=np.int32)
    return np.concatenate([np.zeros(1, np.int32), ends[:-1]])[: len(text)], ends


def _exp(nats: float) -> float:
    return math.exp(min(nats, 700.0)) if math.isfinite(nats) else nats
