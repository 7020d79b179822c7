"""Read what weights are derived from: a reference model's published scores, or a student's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from benchmarks.gain.methods import METHODS, Weighting
from benchmarks.gain.student import Student, Tokens
from scorer.checkpoint.files import Checkpoint
from scorer.columns import IS_STOP
from scorer.results import TokenScores
from scorer.table import text_hash
from scorer.training import read_weights
from scorer.training.rows import as_function
from scorer.types import Float32Array
from scorer.weighting.dataset_gaps import DatasetGaps
from scorer.weights import Method

MID_GREY = 128
SELF = "self"
"""The reference that is an early state of the student itself."""


class Scores(Protocol):
    """The scores of a training set's captions, in order."""

    def rows(self) -> Sequence[TokenScores]:
        """Return the scores."""
        ...

    def weights(self, weighting: Weighting) -> Iterator[tuple[TokenScores, Float32Array]]:
        """Yield each caption's scores with the weights of its tokens, stop token included."""
        ...


@dataclass(frozen=True)
class Published:
    """The outputs of `tokensight score`: a reference model's, and a text reference's, which PRIOR reads."""

    output: Path
    text: Path

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise TableError if the captions are not those that were scored."""
        for row, text in zip(read_weights(self.output), texts, strict=True):
            row.check_text([text])

    @cached_property
    def _rows(self) -> list[TokenScores]:
        return [scores for scores, _ in self._read(None, None)]

    def rows(self) -> Sequence[TokenScores]:
        return self._rows

    def weights(self, weighting: Weighting) -> Iterator[tuple[TokenScores, Float32Array]]:
        return self._read(weighting, self.text if METHODS[weighting.method].of_text else None)

    def _read(self, weighting: Weighting | None, text: Path | None) -> Iterator[tuple[TokenScores, Float32Array]]:
        for row in read_weights(self.output, method=None if weighting is None else weighting.derive(), text=text):
            if row.scores is None or row.weights is None:
                raise RuntimeError(f"row {row.row_index} of {self.output} was not scored: {row.error}")
            yield row.scores, row.weights


@dataclass(frozen=True)
class Own:
    """Scores that were computed in this process."""

    scores: Sequence[TokenScores]

    @cached_property
    def gaps(self) -> DatasetGaps:
        """The dataset's gaps, which a finished run would have recorded."""
        each = [one.logprob_clean.astype(np.float64) - one.logprob_contrast for one in self.scores]
        return DatasetGaps.of(np.concatenate(each), np.cumsum([0, *map(len, each)]))

    def rows(self) -> Sequence[TokenScores]:
        return self.scores

    def weights(self, weighting: Weighting) -> Iterator[tuple[TokenScores, Float32Array]]:
        derive: Any = as_function(weighting.derive())
        derive = derive.with_gaps(self.gaps) if isinstance(derive, Method) else derive
        return ((one, derive(one)) for one in self.scores)


@torch.inference_mode()
def score(student: Student, images: Tensor, tokens: Sequence[Tokens], texts: Sequence[str], batch: int = 64) -> Own:
    """Score captions by the student itself, with each image and with a grey one.

    Args:
        images: uint8 [N, 3, H, W].
        tokens: of each caption; the end is its stop token.
    """
    student.eval()
    found = []
    grey = student.see(torch.full_like(images[:1], MID_GREY))
    for first in range(0, len(tokens), batch):
        part = tokens[first : first + batch]
        ids = torch.zeros((len(part), max(len(one.ids) for one in part)), dtype=torch.long)
        for b, one in enumerate(part):
            ids[b, : len(one.ids)] = torch.tensor(one.ids)
        seen = student.see(images[first : first + batch])
        clean, contrast = (_of_labels(student.read(x, ids[:, :-1]), ids) for x in (seen, grey.expand_as(seen)))
        for b, one in enumerate(part):
            n, size = len(one.ids), len(texts[first + b].encode())
            stop = np.arange(n) == n - 1
            found.append(
                TokenScores(
                    sample_id=f"{first + b}",
                    token_ids=np.array(one.ids, np.int32),
                    token_starts=np.append(one.starts, size).astype(np.int32),
                    token_ends=np.append(one.ends, size).astype(np.int32),
                    token_turns=np.zeros(n, np.int16),
                    text_hash=text_hash([texts[first + b]]),
                    logit_gap=(clean[0] - contrast[0])[b, :n].numpy(),
                    logprob_clean=clean[1][b, :n].numpy(),
                    logprob_contrast=contrast[1][b, :n].numpy(),
                    optional={IS_STOP: stop},
                )
            )
    student.train()
    return Own(found)


def _of_labels(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the labels' logits and log-probabilities, float32 [B, T], from logits [B, T, V]."""
    own = logits.gather(-1, ids[..., None])[..., 0]
    return own, own - logits.logsumexp(-1)


def digest(model: Path) -> str:
    """Return the SHA-256 of a reference model's weights, which tells it from another in the same folder."""
    return str(Checkpoint.locate(model).digests["weights_sha256"])
