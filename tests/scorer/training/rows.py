"""Published rows made up for tests: a reference whose tokens are words with the space before them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from scorer.results import TokenScores
from scorer.table import text_hash
from scorer.training import WeightRow


def words(text: str) -> list[tuple[int, int]]:
    """Byte span of every word with the white space before it; white space behind the last is its own."""
    return [(len(text[: m.start()].encode()), len(text[: m.end()].encode())) for m in re.finditer(r"\s*\S+|\s+$", text)]


def scores_of(texts: Sequence[str], sample_id: str = "s") -> TokenScores:
    spans = [(turn, start, end) for turn, text in enumerate(texts) for start, end in words(text)]
    turns, starts, ends = np.array(spans, np.int32).reshape(-1, 3).T
    gap = np.zeros(len(spans), np.float32)
    return TokenScores(
        sample_id=sample_id,
        token_ids=np.arange(len(spans), dtype=np.int32),
        token_starts=starts,
        token_ends=ends,
        token_turns=turns.astype(np.int16),
        text_hash=text_hash(texts),
        logit_gap=gap,
        logprob_clean=gap,
        logprob_contrast=gap,
    )


def row_of(texts: Sequence[str], heavy: Mapping[str, float] | None = None, default: float = 2.0) -> WeightRow:
    """A row whose words weigh ``heavy[word]``, others ``default``."""
    scores = scores_of(texts)
    weights = [
        (heavy or {}).get(texts[turn].encode()[start:end].decode().strip(), default)
        for turn, start, end in zip(scores.token_turns, scores.token_starts, scores.token_ends, strict=True)
    ]
    return WeightRow("train.parquet", 7, "s", "ok", None, scores, np.array(weights, np.float32))


def with_stops(row: WeightRow, texts: Sequence[str], stops: Mapping[int, float]) -> WeightRow:
    """The row with a stop token of this weight at the end of these turns' texts."""
    assert row.scores is not None and row.weights is not None
    arrays = row.scores.arrays
    weights = row.weights
    is_stop = np.zeros(len(weights), np.bool_)
    for turn, weight in stops.items():
        at = int(np.searchsorted(arrays["token_turns"], turn, side="right"))
        size = len(texts[turn].encode())
        values = {"token_starts": size, "token_ends": size, "token_turns": turn}
        arrays = {name: np.insert(array, at, values.get(name, 0)) for name, array in arrays.items()}
        weights, is_stop = np.insert(weights, at, weight), np.insert(is_stop, at, True)
    scores = TokenScores.from_arrays("s", row.scores.text_hash, {**arrays, "is_stop": is_stop})
    return replace(row, scores=scores, weights=weights.astype(np.float32))


def failed_row() -> WeightRow:
    return WeightRow("train.parquet", 8, "f", "image_missing", "no such file", None, None)
