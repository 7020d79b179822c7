"""Turn samples into raw scores; this is the one file that knows the order of the steps."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from itertools import islice
from os import PathLike
from typing import Any, Final

import numpy as np
import torch

from scorer import forward
from scorer.checkpoint.files import Checkpoint
from scorer.checkpoint.fingerprint import fingerprint
from scorer.config import ScorerConfig
from scorer.contrasts import Capability
from scorer.encoding.encoder import Encoder
from scorer.errors import BatchTooLargeError, FailureCode
from scorer.forward import LabelScores, verify
from scorer.forward.batching import map_batches
from scorer.forward.self_check import TOLERANCE, Pair, SelfCheck, compare
from scorer.mini import MODEL_PATH
from scorer.results import Failure, Result, TokenScores
from scorer.types import BoolArray, EncodedSample, Sample, Usage

logger = logging.getLogger(__name__)

_CHUNK: Final = 256
"""Samples per chunk when encoding runs ahead of scoring; batches are formed within a chunk."""
_CHECKED: Final = 2
"""Rows of each :meth:`Scorer.score_batches` that are also scored by two full passes."""


class Scorer:
    """A frozen reference model that scores how much each text token depends on the image.

    >>> scorer = Scorer.load("llava-hf/llava-1.5-7b-hf", ScorerConfig(dtype="bfloat16"))
    >>> scores, = scorer.score([Sample.caption("1", "kite.jpg", "A red kite over two boats.")])
    >>> scores.logprob_gap

    Attributes:
        encoder: encodes samples for this model.
        model: the loaded model.
        max_batch_tokens: how many tokens one forward pass of :meth:`score` may hold, as memory has allowed so far.
        self_check: how the fast path compared with two full passes when it was last checked; None before that, and for
            models without a fast path.
    """

    def __init__(self, checkpoint: Checkpoint, config: ScorerConfig) -> None:
        self.checkpoint = checkpoint
        self.encoder = Encoder(checkpoint, config)
        self.model = forward.ReferenceModel(checkpoint.load_model(config), checkpoint.family, config.compile)
        self.max_batch_tokens = config.max_batch_tokens
        self._begin(config)
        if checkpoint.family.class_forward:
            self._check_unlisted()

    @classmethod
    def load(
        cls, model: str | PathLike[str] | None = None, config: ScorerConfig | None = None, revision: str | None = None
    ) -> Scorer:
        """Load a model from a local directory or hub id; safetensors only, no remote code.

        Without a model, load the packaged one, which knows drawn shapes only, and log a warning.

        Raises:
            ModelError: the model cannot be found or loaded, or its family is not supported.
        """
        if model is None:
            model = MODEL_PATH
            logger.warning(
                "no model was given: using the packaged mini model, which knows drawn shapes only; give a real one, "
                "such as Scorer.load('llava-hf/llava-1.5-7b-hf')"
            )
        return cls(Checkpoint.locate(model, revision), config or ScorerConfig())

    def __repr__(self) -> str:
        packaged = self.checkpoint.path == MODEL_PATH
        name = "the packaged mini model" if packaged else repr(self.checkpoint.name)
        how = f"contrast {self.config.contrast}, {self.config.dtype} on {self.model.device}, {self.path} path"
        return f"<Scorer of {name} ({self.checkpoint.config.model_type}), {how}>"

    def _begin(self, config: ScorerConfig) -> None:
        """Set the state that belongs to one contrast."""
        self.config = config
        self._fast: forward.FastPath | None = None
        if self.checkpoint.family.fast:
            self._fast = forward.FastPath(self.model, config.contrast, config.contrast_cache_bytes)
        self._path = "plain" if self._fast is None else "fast"
        self.self_check: SelfCheck | None = None
        self._fingerprint: dict[str, Any] | None = None

    def with_contrast(self, contrast: str) -> Scorer:
        """Return a scorer for another contrast on the same weights, with a separate self-check and contrast prefixes.

        Use both from one thread: they share the model and the usage.

        Raises:
            ModelError: the contrast is not defined for this model.
        """
        other = copy(self)
        other.encoder = self.encoder.with_contrast(contrast)
        other._begin(other.encoder.config)
        return other

    def _check_unlisted(self) -> None:
        """Check a model without a verified record against its own class; see :mod:`scorer.forward.verify`."""
        if self.checkpoint.family.text_only:
            verify.check_causal(self.encoder, self.model)
            return
        logger.warning(
            "model %s has type %s, which has no verified record: each row is scored alone by its class's own forward "
            "pass, several times slower than a verified type",
            self.checkpoint.name,
            self.checkpoint.config.model_type,
        )
        verify.check_unlisted(self.encoder, self.model, TOLERANCE[self.config.dtype])

    @property
    def path(self) -> str:
        """How the last scores were computed: ``fast``, or ``plain`` (two full forward passes)."""
        return self._path

    @property
    def usage(self) -> Usage:
        """Tokens that the model has run since it was loaded, with and without padding."""
        return self.model.usage

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides the scores; see :func:`scorer.checkpoint.fingerprint.fingerprint`.

        Its ``path`` shows, after the first batch, whether the model fell back to two full passes.
        """
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.checkpoint.path, self.config) | {
                "model": self.checkpoint.name,
                "revision": self.checkpoint.revision,
            }
        return self._fingerprint | {"path": self.path}

    def score(self, samples: Sequence[Sample], encode_threads: int = 2) -> list[Result]:
        """Score samples; return one result per sample, in order, with a :class:`Failure` for each bad one.

        Encoding runs ahead of the model in ``encode_threads`` threads. Scores keep the samples' texts, which
        notebooks display in colour.
        """
        _check_samples(samples)
        results = (
            result
            for chunk in _encode_ahead(self.encoder, samples, encode_threads)
            for result in self.score_encoded(chunk)
        )
        return [
            replace(result, texts=sample.scored_texts) if isinstance(result, TokenScores) else result
            for sample, result in zip(samples, results, strict=True)
        ]

    def score_encoded(self, rows: Sequence[EncodedSample | Failure]) -> list[Result]:
        """Score encoded samples; failures pass through in place.

        The scores may depend, within rounding, on what was scored before: batches become smaller for good when memory
        runs out, and the first batch decides whether the fast path is used. :meth:`score_batches` has no memory.
        """
        while True:
            try:
                return self._score_all(rows, self.max_batch_tokens, self._score_batch)
            except BatchTooLargeError as error:
                self.max_batch_tokens = error.smaller
                logger.warning("%s; continuing with batches of at most %d tokens", error, error.smaller)

    def score_batches(self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int) -> list[Result]:
        """Score encoded samples such that their scores follow from these rows and this budget alone.

        Each call checks the fast path on its own first rows; if it fails, all its rows are scored by two full passes.

        Args:
            rows: is iterated over once, in order.

        Raises:
            BatchTooLargeError: a batch did not fit in memory. No row is scored; try a smaller budget.
        """
        rows = list(rows)
        self._path = "plain" if self._fast is None else "fast"
        if self._fast is None:
            return self._score_all(rows, max_batch_tokens, self._score_plain)
        try:
            return self._score_all(rows, max_batch_tokens, self._checking(self._fast))
        except _FastPathDiffersError:
            self._path = "plain"
            return self._score_all(rows, max_batch_tokens, self._score_plain)

    def _score_all(
        self,
        rows: Sequence[EncodedSample | Failure],
        max_batch_tokens: int,
        score: Callable[[list[EncodedSample]], list[Result]],
    ) -> list[Result]:
        """Score rows in batches by ``score``.

        Text-only rows form batches of their own, so that the scores of the others do not depend on them.
        """
        encoded = [row for row in rows if isinstance(row, EncodedSample)]
        paired = iter(_in_batches([row for row in encoded if not row.text_only], max_batch_tokens, score))
        texts = [row for row in encoded if self._runs_alone(row)]
        alone = iter(_in_batches(texts, max_batch_tokens, self._score_texts))

        def result(row: EncodedSample) -> Result:
            if not row.text_only:
                return next(paired)
            return next(alone) if self._runs_alone(row) else _text_result(row, None)

        return [result(row) if isinstance(row, EncodedSample) else row for row in rows]

    def _runs_alone(self, row: EncodedSample) -> bool:
        """Whether the row is text-only and the model can score it: its first label needs a token before it."""
        can = Capability.TEXT_ALONE in self.model.family.capabilities
        return row.text_only and can and len(row.contrast.label_index) > 0

    def _score_texts(self, rows: list[EncodedSample]) -> list[Result]:
        scores = forward.score_text(self.model, rows)
        return [_text_result(row, one) for row, one in zip(rows, scores, strict=True)]

    def _score_batch(self, rows: list[EncodedSample]) -> list[Result]:
        if self._fast is None:
            return self._score_plain(rows)
        pairs = self._fast.score(rows)
        if self.self_check is None and not self._agrees(rows, pairs):
            self._fast, self._path = None, "plain"
            return self._score_plain(rows)
        return self._results(rows, pairs)

    def _score_plain(self, rows: list[EncodedSample]) -> list[Result]:
        return self._results(rows, forward.score_two_forwards(self.model, rows))

    def _checking(self, fast: forward.FastPath) -> Callable[[list[EncodedSample]], list[Result]]:
        """Return a function that scores batches on the fast path and checks the first rows of the first.

        It raises _FastPathDiffersError if the check fails.
        """
        checked = False

        def score(rows: list[EncodedSample]) -> list[Result]:
            nonlocal checked
            pairs = fast.score(rows)
            if not checked and not self._agrees(rows[:_CHECKED], pairs[:_CHECKED]):
                raise _FastPathDiffersError
            checked = True
            return self._results(rows, pairs)

        return score

    def _agrees(self, rows: list[EncodedSample], fast: list[Pair]) -> bool:
        """Whether the fast path's scores of these rows differ from two full passes by no more than rounding."""
        self.self_check = compare(fast, forward.score_two_forwards(self.model, rows), self.config.dtype)
        if not self.self_check.passed:
            logger.warning(
                "the fast path differs from two full forward passes by %.3g (limit %.3g, %s): rows of model %s are "
                "scored with two full passes, at about twice the cost; please report this",
                self.self_check.difference,
                self.self_check.limit,
                self.config.dtype,
                self.checkpoint.name,
            )
        return self.self_check.passed

    def _results(self, rows: list[EncodedSample], pairs: list[Pair]) -> list[Result]:
        return [
            _result(row, clean, contrast, self.model.family.text_only)
            for row, (clean, contrast) in zip(rows, pairs, strict=True)
        ]


class _FastPathDiffersError(Exception):
    """The fast path failed its check."""


def _in_batches(
    rows: Sequence[EncodedSample], max_tokens: int, score: Callable[[list[EncodedSample]], list[Result]]
) -> list[Result]:
    return map_batches(
        rows,
        length=lambda row: row.length,
        text=lambda row: row.length - int(row.clean.label_index[0]),
        group=lambda row: row.clean.pixels_digest,
        max_tokens=max_tokens,
        score=score,
        is_out_of_memory=_is_out_of_memory,
        too_large=_too_large,
    )


def _check_samples(samples: object) -> None:
    """Raise TypeError, naming the first argument that is no sample."""
    advice = "give a list of scorer.Sample, such as [Sample.caption('1', 'kite.jpg', 'A red kite.')]"
    if not isinstance(samples, Sequence) or isinstance(samples, (str, bytes)):
        raise TypeError(f"samples is {type(samples).__name__}; {advice}")
    for i, sample in enumerate(samples):
        if not isinstance(sample, Sample):
            raise TypeError(f"samples[{i}] is {type(sample).__name__}; {advice}")
        if not isinstance(sample.sample_id, str):
            raise TypeError(
                f"samples[{i}] has the id {sample.sample_id!r}, a {type(sample.sample_id).__name__}; give a string"
            )


def _encode_ahead(encoder: Encoder, samples: Iterable[Sample], threads: int) -> Iterator[list[EncodedSample | Failure]]:
    """Yield encoded samples in chunks; the next chunk is encoded while the model works on this one."""
    waiting: deque[Future[EncodedSample | Failure]] = deque()
    remaining = iter(samples)
    with ThreadPoolExecutor(threads, thread_name_prefix="encode") as pool:
        while True:
            waiting.extend(pool.submit(encoder.try_encode, one) for one in islice(remaining, 2 * _CHUNK - len(waiting)))
            if not waiting:
                return
            yield [waiting.popleft().result() for _ in range(min(_CHUNK, len(waiting)))]


def _is_out_of_memory(error: Exception) -> bool:
    """Recognise CUDA's error, and the CPU allocator's, which has no dedicated type."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _too_large(row: EncodedSample, error: Exception) -> Result:
    return Failure(
        row.sample_id,
        FailureCode.SCORING_FAILED,
        f"the row's {row.length} tokens alone do not fit in the device's memory ({error}); use a smaller dtype or "
        "--truncate",
    )


def _result(row: EncodedSample, clean: LabelScores, contrast: LabelScores, text_only: bool) -> Result:
    scores = _scores(row, clean, contrast)
    bad = ~np.isfinite(scores.logprob_contrast)
    if not text_only:  # without images there is no clean branch, and its scores are NaN by definition
        bad |= ~(np.isfinite(scores.logit_gap) & np.isfinite(scores.logprob_clean))
    return _non_finite(row, bad) if bad.any() else scores


def _text_result(row: EncodedSample, alone: LabelScores | None) -> Result:
    """Return a text-only row's result; ``alone`` are the scores of its text, None if the model cannot run it."""
    undefined = forward.undefined_scores(len(row.token_ids))
    scores = _scores(row, undefined, undefined if alone is None else alone)
    bad = ~np.isfinite(scores.logprob_contrast)
    return _non_finite(row, bad) if alone is not None and bad.any() else scores


def _scores(row: EncodedSample, clean: LabelScores, contrast: LabelScores) -> TokenScores:
    return TokenScores(
        sample_id=row.sample_id,
        token_ids=row.token_ids,
        token_starts=row.token_starts,
        token_ends=row.token_ends,
        token_turns=row.token_turns,
        text_hash=row.text_hash,
        logit_gap=clean.logit - contrast.logit,
        logprob_clean=clean.logprob,
        logprob_contrast=contrast.logprob,
        text_only=row.text_only,
    )


def _non_finite(row: EncodedSample, bad: BoolArray) -> Failure:
    return Failure(
        row.sample_id,
        FailureCode.NON_FINITE,
        f"the model returned NaN or infinity for {int(bad.sum())} of {len(bad)} tokens, first at token "
        f"{int(bad.argmax())}; a wider dtype (--dtype bfloat16 or float32) usually helps",
    )
