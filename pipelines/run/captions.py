"""Score several captions of one image separately, and store them as the turns of one row.

A published shard matches its input shard row for row, so a caption cannot be a row: each is a scored turn. The joined
row's ``token_turns`` says which turn a token belongs to, and a reader passes the texts of all turns to ``check_text``.
Weights are pooled within one turn (with CAL's ``edges=paper``, what follows every text but the last counts as in a
conversation); methods that normalise or rank (``prior``, ``vig``, ``vig-row``) do so over the whole row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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


class TakenApart:
    """Rows, taken apart into their turns for the scorer, whose results are then joined.

    Iterating yields one entry per turn, in order. Of a row that has passed, only what :meth:`join` needs is kept, and
    none of its pixels.

    Attributes:
        sample_ids: the ids of the rows that have passed, in order.
    """

    def __init__(self, rows: Iterable[EncodedRow]) -> None:
        self._rows = iter(rows)
        self.sample_ids: list[str] = []
        self._several: dict[int, _Turns] = {}  # by position among the rows

    def __iter__(self) -> Iterator[EncodedSample | Failure]:
        for row in self._rows:
            self.sample_ids.append(row.sample_id)
            if isinstance(row, EncodedCaptions):
                self._several[len(self.sample_ids) - 1] = _Turns(row.texts, tuple(k for k, _ in row.parts))
                yield from (part for _, part in row.parts)
            else:
                yield row

    def join(self, results: Sequence[Result]) -> list[Result]:
        """Join the results of the turns into one result per row.

        Raises:
            RunError: rows have several turns, and there are more or fewer results than turns.
        """
        for _ in self:  # a scorer that leaves rows aside returns too few results, which is found below
            pass
        if not self._several:
            return list(results)
        needed = len(self.sample_ids) + sum(len(turns.kept) - 1 for turns in self._several.values())
        if len(results) != needed:
            raise RunError(f"{needed} turns went in and {len(results)} results came out; none of them is stored")
        left = iter(results)
        return [
            next(left) if (turns := self._several.get(i)) is None else _join(sample_id, turns, left)
            for i, sample_id in enumerate(self.sample_ids)
        ]


@dataclass(frozen=True, slots=True)
class _Turns:
    """The turns of a row: all texts, and the numbers of those that are not empty."""

    texts: tuple[str, ...]
    kept: tuple[int, ...]


def _join(sample_id: str, turns: _Turns, results: Iterator[Result]) -> Result:
    scored: list[TokenScores] = []
    failure: Failure | None = None
    for k in turns.kept:
        result = next(results)
        if isinstance(result, Failure):
            failure = failure or _failure(sample_id, k, len(turns.texts), result)
            continue
        numbers = np.full(len(result.token_ids), k, dtype=np.int16)  # int16 [N_k]
        scored.append(replace(result, token_turns=numbers))
    if failure is not None:
        return failure
    arrays = [scores.arrays for scores in scored]
    joined = {name: np.concatenate([one[name] for one in arrays]) for name in arrays[0]}
    text_only = all(scores.text_only for scores in scored)
    return TokenScores.from_arrays(sample_id, text_hash(turns.texts), joined, text_only=text_only)


def _sharing_pixels(encoded: EncodedSample, first: EncodedSample) -> EncodedSample:
    """Share equal pixels as one object, so that a row carries one copy of its images and not one per turn."""
    pairs = zip(encoded.branches, first.branches, strict=True)
    return encoded.with_branches(
        [replace(one, pixels=other.pixels) if one.pixels_digest == other.pixels_digest else one for one, other in pairs]
    )


def _failure(sample_id: str, k: int, count: int, failure: Failure) -> Failure:
    return Failure(sample_id, failure.code, f"turn {k} of {count}: {failure.message}")
