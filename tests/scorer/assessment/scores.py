"""Scores made by hand, for tests of what is computed from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scorer.results import TokenScores


def scores(
    tokens: Sequence[tuple[str, float, float]], name: str = "row", *, turn: Sequence[int] | None = None, **more: object
) -> TokenScores:
    """Scores of tokens end to end: (text, log-probability with the image, with the contrast)."""
    turns = np.array([0] * len(tokens) if turn is None else turn, dtype=np.int16)
    starts, ends = [], []
    at = 0
    for i, (text, *_) in enumerate(tokens):
        at = 0 if i and turns[i] != turns[i - 1] else at
        starts.append(at)
        at += len(text.encode())
        ends.append(at)
    clean, contrast = (np.array([token[k] for token in tokens], dtype=np.float32) for k in (1, 2))
    return TokenScores(
        sample_id=name,
        token_ids=np.arange(len(tokens), dtype=np.int32),
        token_starts=np.array(starts, dtype=np.int32),
        token_ends=np.array(ends, dtype=np.int32),
        token_turns=turns,
        text_hash="",
        logit_gap=clean - contrast,
        logprob_clean=clean,
        logprob_contrast=contrast,
        **more,  # type: ignore[arg-type]
    )
