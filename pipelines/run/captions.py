"""Score several captions of one image separately, and store them as the turns of one row.

A published shard matches its input shard row for row, so a caption cannot be a row: each is a scored turn. The joined
row's ``token_turns`` says which turn a token belongs to, and a reader passes the texts of all turns to ``check_text``.
Weights are pooled within one turn; methods that normalise or rank (``prior``, ``vig``) do so over the whole row, as
over a conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.run.engine import RowEncoder
from pipelines.sources import Captions, ReadRow
from scorer.errors import FailureCode, RunError
from scorer.results import Failure, Result, TokenScores
from scorer.table import text_hash
from scorer.types import EncodedSample


@dataclass(frozen=True, slots=True)
class EncodedCaptions:
    """The turns of one row, as the model sees them.

    Attributes:
        texts: the texts of all turns, including the empty ones.
        parts: index and encoding of each turn that is not empty; at least one.
    """

    sample_id: str
    texts: tuple[str, ...]
    parts: tuple[tuple[int, EncodedSample], ...]


EncodedRow = EncodedSample | EncodedCaptions | Failure


def encode_row(row: ReadRow, encoder: RowEncoder) -> EncodedRow:
    """Encode a row. A turn that cannot be encoded fails the row; an empty one has no tokens."""
    if isinstance(row, Failure):
        return row
    if not isinstance(row, Captions):
        return encoder.try_encode(row)
    parts: list[tuple[int, EncodedSample]] = []
    for k, text in enumerate(row.texts):
        if not text.strip():
            continue
        encoded = encoder.try_encode(row.sample(k))
        if isinstance(encoded, Failure):
            return _failure(row.sample_id, k, len(row.texts), encoded)
        parts.append((k, _sharing_pixels(encoded, parts[0][1]) if parts else encoded))
    if not parts:
        return Failure(row.sample_id, FailureCode.TEXT_MISSING, "all turns of the row are empty")
    return EncodedCaptions(row.sample_id, row.texts, tuple(parts))


def take_apart(rows: Sequence[EncodedRow]) -> list[EncodedSample | Failure]:
    """Split rows into one entry per turn, in order."""
    return [
        part
        for row in rows
        for part in ([encoded for _, encoded in row.parts] if isinstance(row, EncodedCaptions) else [row])
    ]


def join_captions(rows: Sequence[EncodedRow], results: Sequence[Result]) -> list[Result]:
    """Join the results of the entries from :func:`take_apart` into one result per row.

    Raises:
        RunError: there are more or fewer results than entries.
    """
    if not any(isinstance(row, EncodedCaptions) for row in rows):
        return list(results)
    needed = sum(len(row.parts) if isinstance(row, EncodedCaptions) else 1 for row in rows)
    if len(results) != needed:
        raise RunError(f"{needed} turns went in and {len(results)} results came out; none of them is stored")
    left = iter(results)
    return [
        _join(row, [next(left) for _ in row.parts]) if isinstance(row, EncodedCaptions) else next(left) for row in rows
    ]


def _join(row: EncodedCaptions, results: Sequence[Result]) -> Result:
    scored: list[TokenScores] = []
    for (k, _), result in zip(row.parts, results, strict=True):
        if isinstance(result, Failure):
            return _failure(row.sample_id, k, len(row.texts), result)
        turns = np.full(len(result.token_ids), k, dtype=np.int16)  # int16 [N_k]
        scored.append(replace(result, token_turns=turns))
    arrays = [scores.arrays for scores in scored]
    joined = {name: np.concatenate([one[name] for one in arrays]) for name in arrays[0]}
    text_only = all(scores.text_only for scores in scored)
    return TokenScores.from_arrays(row.sample_id, text_hash(row.texts), joined, text_only=text_only)


def _sharing_pixels(encoded: EncodedSample, first: EncodedSample) -> EncodedSample:
    """Share equal pixels as one object, so that a row carries one copy of its images and not one per turn."""
    clean, contrast = encoded.clean, encoded.contrast
    if clean.pixels_digest == first.clean.pixels_digest:
        clean = replace(clean, pixels=first.clean.pixels)
    if contrast.pixels_digest == first.contrast.pixels_digest:
        contrast = replace(contrast, pixels=first.contrast.pixels)
    return replace(encoded, clean=clean, contrast=contrast)


def _failure(sample_id: str, k: int, count: int, failure: Failure) -> Failure:
    return Failure(sample_id, failure.code, f"turn {k} of {count}: {failure.message}")
