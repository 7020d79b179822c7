"""Samples in, raw scores out: the one file that knows the order of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np

from scorer import forward
from scorer.batching import map_batches
from scorer.config import ScorerConfig
from scorer.encode import Encoder
from scorer.errors import FailureCode
from scorer.reference import Reference, fingerprint
from scorer.types import EncodedSample, Failure, Result, Sample, TokenScores


class Scorer:
    """A frozen reference model that scores how much each text token depends on the picture.

    >>> scorer = Scorer.load("llava-hf/llava-1.5-7b-hf", ScorerConfig(dtype="bfloat16"))
    >>> scores, = scorer.score([Sample.caption("1", "kite.jpg", "A red kite over two boats.")])
    >>> scores.logprob_gap
    """

    def __init__(self, reference: Reference, config: ScorerConfig) -> None:
        self.reference = reference
        self.config = config
        self.encoder = Encoder(reference, config)
        self.model = forward.ReferenceModel(reference.load_model(config), reference.family)
        self._fast = forward.FastPath(self.model, config.contrast, config.contrast_cache_bytes)

    @classmethod
    def load(
        cls, model: str | PathLike[str], config: ScorerConfig | None = None, revision: str | None = None
    ) -> Scorer:
        """Load a local directory or hub id; safetensors only, no remote code.

        Raises:
            ModelError: it cannot be had, or its family is not supported.
        """
        return cls(Reference.locate(model, revision), config or ScorerConfig())

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides the scores; see :func:`scorer.reference.fingerprint`."""
        return fingerprint(self.reference.path, self.config) | {
            "model": self.reference.name,
            "revision": self.reference.revision,
        }

    def score(self, samples: Sequence[Sample]) -> list[Result]:
        """Score samples; one result per sample, in order, a bad sample being a :class:`Failure`."""
        return self.score_encoded([self.encoder.try_encode(sample) for sample in samples])

    def score_encoded(self, rows: Sequence[EncodedSample | Failure]) -> list[Result]:
        """Score encoded samples; failures pass through in their places."""
        encoded = [row for row in rows if isinstance(row, EncodedSample)]
        scored = iter(map_batches(encoded, lambda row: row.length, self.config.max_batch_tokens, self._score_batch))
        return [next(scored) if isinstance(row, EncodedSample) else row for row in rows]

    def _score_batch(self, rows: list[EncodedSample]) -> list[Result]:
        pairs = self._fast.score(rows) if self.model.family.fast else forward.score_two_forwards(self.model, rows)
        return [_result(row, clean, contrast) for row, (clean, contrast) in zip(rows, pairs, strict=True)]


def _result(row: EncodedSample, clean: forward.LabelScores, contrast: forward.LabelScores) -> Result:
    scores = TokenScores(
        sample_id=row.sample_id,
        token_ids=row.token_ids,
        token_starts=row.token_starts,
        token_ends=row.token_ends,
        token_turns=row.token_turns,
        text_hash=row.text_hash,
        logit_gap=clean.logit - contrast.logit,
        logprob_clean=clean.logprob,
        logprob_contrast=contrast.logprob,
    )
    bad = ~(np.isfinite(scores.logit_gap) & np.isfinite(scores.logprob_clean) & np.isfinite(scores.logprob_contrast))
    if bad.any():
        return Failure(
            row.sample_id,
            FailureCode.NON_FINITE,
            f"the model returned NaN or infinity for {int(bad.sum())} of {len(bad)} tokens, first at token "
            f"{int(bad.argmax())}; a wider dtype (--dtype bfloat16 or float32) usually helps",
        )
    return scores
