"""Turn samples into raw scores; this is the one file that knows the order of the steps."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from os import PathLike
from typing import Any, Final

from scorer import forward
from scorer.assembly import Assembly, Scores
from scorer.checkpoint.files import Checkpoint
from scorer.checkpoint.fingerprint import fingerprint_of
from scorer.checkpoint.loading import resolve_device
from scorer.config import ScorerConfig
from scorer.contrasts import Capability, parse_contrast
from scorer.encoding.encoder import Encoder
from scorer.encoding.shuffling import with_partners
from scorer.errors import BatchTooLargeError
from scorer.forward import FastPathDiffersError, Item, verify
from scorer.forward.batching import plain_batches, windows
from scorer.forward.self_check import TOLERANCE, SelfCheck, compare, of_each_kind
from scorer.mini import MODEL_PATH
from scorer.ranks import Ranks, Request, check_heads
from scorer.results import Failure, Result, TokenScores
from scorer.score_bits import rounded
from scorer.types import EncodedSample, Sample, Usage

logger = logging.getLogger(__name__)

_CHUNK: Final = 256
"""Samples per chunk when encoding runs ahead of scoring; batches are formed within a chunk."""
_Fast = Callable[[Iterable[EncodedSample], int], Iterator[tuple[Item, Scores]]]
"""(rows, budget) → each branch's scores, on the fast path."""


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

    def __init__(self, checkpoint: Checkpoint, config: ScorerConfig, *, follows: bool = False) -> None:
        """Load a model; see :meth:`load`.

        Args:
            follows: whether another process leads this one, of those that share the model's weights.
        """
        self.checkpoint = checkpoint
        self.encoder = Encoder(checkpoint, config)
        self._ranks: Ranks | None = None
        if config.tensor_parallel > 1 and not follows:
            check_heads(checkpoint.name, checkpoint.config.get_text_config(), config.tensor_parallel)
            self._ranks = Ranks.start(checkpoint.path, config, resolve_device(config.device))
        try:
            self.model = forward.ReferenceModel(checkpoint.load_model(config), checkpoint.family, config.compile)
            self.max_batch_tokens = config.max_batch_tokens
            self._begin(config)
            if checkpoint.family.class_forward:
                self._check_unlisted()
            if self._ranks is not None:
                self._ranks.wait_until_loaded()
        except BaseException:
            self.close()
            raise

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

    def close(self) -> None:
        """End the processes that share the model's weights (``tensor_parallel``); without them, do nothing.

        They also end with this process, and when the scorer and those made of it are no longer referred to.
        """
        if self._ranks is not None:
            self._ranks.close()

    def __repr__(self) -> str:
        packaged = self.checkpoint.path == MODEL_PATH
        name = "the packaged mini model" if packaged else repr(self.checkpoint.name)
        how = (
            f"contrast {','.join(self.config.contrasts)}, {self.config.dtype} on {self.model.device}, {self.path} path"
        )
        return f"<Scorer of {name} ({self.checkpoint.config.model_type}), {how}>"

    def _begin(self, config: ScorerConfig) -> None:
        """Set the state that belongs to the contrasts."""
        self.config = config
        self._quantities = forward.Quantities.asked_for(config.distribution_columns)
        self._fast: forward.FastPath | None = None
        if self.checkpoint.family.fast:
            bucket = forward.bucket_for(config.max_batch_tokens, self.model.device, config.compile)
            self._fast = forward.FastPath(
                self.model, config.contrasts, config.contrast_cache_bytes, bucket=bucket, quantities=self._quantities
            )
        self._path = "plain" if self._fast is None else "fast"
        self._checked: set[str] = set()
        self.self_check: SelfCheck | None = None
        self._fingerprint: dict[str, Any] | None = None

    def with_contrast(self, *contrasts: str) -> Scorer:
        """Return a scorer for other contrasts on the same weights, with a separate self-check and contrast prefixes.

        Use both from one thread: they share the model and the usage.

        Raises:
            ConfigError: there is no such contrast.
            ModelError: the contrast is not defined for this model.
        """
        other = copy(self)
        other.encoder = self.encoder.with_contrast(*contrasts)
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
            self._fingerprint = fingerprint_of(self.checkpoint, self.config)
        return self._fingerprint | {"path": self.path}

    def score(self, samples: Sequence[Sample], encode_threads: int = 2) -> list[Result]:
        """Score samples; return one result per sample, in order, with a :class:`Failure` for each bad one.

        Encoding runs ahead of the model in ``encode_threads`` threads. Scores keep the samples' texts, which
        notebooks display in colour.
        """
        _check_samples(samples)
        asked: Iterable[Sample] = samples
        if any(parse_contrast(contrast).record.needs_rows for contrast in self.config.contrasts):
            asked = with_partners(samples, self.config.noise_seed, self.config.max_image_bytes)
        results = (
            result
            for chunk in _encode_ahead(self.encoder, asked, encode_threads)
            for result in self.score_encoded(chunk)
        )
        return [
            replace(result, texts=sample.scored_texts) if isinstance(result, TokenScores) else result
            for sample, result in zip(samples, results, strict=True)
        ]

    def score_encoded(self, rows: Sequence[EncodedSample | Failure]) -> list[Result]:
        """Score encoded samples; failures pass through in place.

        The scores may depend, within rounding, on what was scored before: contrast prefixes are kept, batches become
        smaller for good when memory runs out, and the fast path is checked on the first rows of each kind.
        :meth:`score_batches` has no memory.
        """
        if self._ranks is None:
            return self._score_encoded(rows)
        request = Request("score_encoded", self.config.contrasts)
        return self._ranks.lead(request, rows, lambda sent: self._score_encoded(list(sent)), lambda: self.path)

    def _score_encoded(self, rows: Sequence[EncodedSample | Failure]) -> list[Result]:
        self._look_once([row for row in rows if isinstance(row, EncodedSample) and not row.text_only])
        while True:
            try:
                return self._score(rows, self.max_batch_tokens, None if self._fast is None else self._fast.score_kept)
            except BatchTooLargeError as error:
                self.max_batch_tokens = error.smaller
                logger.warning("%s; continuing with batches of at most %d tokens", error, error.smaller)

    def score_batches(self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int) -> list[Result]:
        """Score encoded samples such that their scores follow from these rows and this budget alone.

        Rows are read once, as they are needed, and their images are dropped once they are scored. Each call checks the
        fast path on a few of its own rows; if it fails, all rows are scored by two full passes.

        Args:
            rows: is iterated over once, in order.

        Raises:
            BatchTooLargeError: a batch did not fit in memory. No row is scored; try a smaller budget.
        """
        if self._ranks is None:
            return self._score_batches(rows, max_batch_tokens)
        request = Request("score_batches", self.config.contrasts, (max_batch_tokens,))
        score = partial(self._score_batches, max_batch_tokens=max_batch_tokens)
        return self._ranks.lead(request, rows, score, lambda: self.path)

    def _score_batches(self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int) -> list[Result]:
        self._path = "plain" if self._fast is None else "fast"
        look = partial(self._agrees, kept=False)
        fast = None if self._fast is None else partial(self._fast.score_rows, look=look)
        return self._score(rows, max_batch_tokens, fast)

    def _score(
        self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int, fast: _Fast | None
    ) -> list[Result]:
        """Score rows by ``fast``, or by two full passes if that is None or fails its check.

        Text-only rows form batches of their own, so that the scores of the others do not depend on them.
        """
        assembly = Assembly(
            self.model.family.text_only, self.config.further_contrasts, self.config.distribution_columns
        )
        numbers: list[int] = []
        texts: list[tuple[int, EncodedSample]] = []

        def paired() -> Iterator[EncodedSample]:
            for number, row in assembly.take(rows):
                if not row.text_only:
                    numbers.append(number)
                    yield row
                elif self._runs_alone(row):
                    texts.append((number, row))

        waiting = paired()
        try:
            scored = self._plain(waiting, max_batch_tokens) if fast is None else fast(waiting, max_batch_tokens)
            self._put(assembly, numbers, scored)
        except FastPathDiffersError as error:
            self._path = "plain"
            self._put(assembly, numbers, self._plain(chain(error.rows, waiting), max_batch_tokens))
        self._put(assembly, [number for number, _ in texts], self._texts([row for _, row in texts], max_batch_tokens))
        bits = self.config.score_bits
        return [rounded(one, bits) if isinstance(one, TokenScores) else one for one in assembly.results()]

    def _put(self, assembly: Assembly, numbers: Sequence[int], scored: Iterable[tuple[Item, Scores]]) -> None:
        for (i, branch), scores in scored:
            assembly.put(numbers[i], branch, scores)

    def _plain(self, rows: Iterable[EncodedSample], max_batch_tokens: int) -> Iterator[tuple[Item, Scores]]:
        """Yield all branches' scores by a full pass each, a window of rows at a time."""
        first = 0
        for window in windows(rows):
            score = partial(forward.score_full_forwards, self.model, quantities=self._quantities)
            found = plain_batches(window, max_batch_tokens, score)
            for i, (row, scores) in enumerate(zip(window, found, strict=True), first):
                for branch in range(len(row.branches)):
                    yield (i, branch), scores[branch] if isinstance(scores, tuple) else scores
            first += len(window)

    def _runs_alone(self, row: EncodedSample) -> bool:
        """Whether the row is text-only and the model can score it: its first label needs a token before it."""
        can = Capability.TEXT_ALONE in self.model.family.capabilities
        return row.text_only and can and len(row.contrast.label_index) > 0

    def _texts(self, rows: list[EncodedSample], max_batch_tokens: int) -> Iterator[tuple[Item, Scores]]:
        """Yield the scores of text-only rows."""
        if self.path == "fast" and self._fast is not None:
            yield from self._fast.score_texts(rows, max_batch_tokens)
            return
        score = partial(forward.score_text, self.model, quantities=self._quantities)
        alone = plain_batches(rows, max_batch_tokens, score)
        yield from (((i, forward.CONTRAST), scores) for i, scores in enumerate(alone))

    def _look_once(self, rows: list[EncodedSample]) -> None:
        """Check the fast path on rows of each kind that was not checked before; if it fails, give it up."""
        if self._fast is None or not rows:
            return
        kinds = {kind: few for kind, few in of_each_kind(rows).items() if kind not in self._checked}
        self._checked.update(kinds)
        if kinds and not self._agrees([row for few in kinds.values() for row in few], kept=True):
            self._fast, self._path = None, "plain"

    def _agrees(self, rows: list[EncodedSample], kept: bool) -> bool:
        """Whether the fast path's scores of these rows differ from two full passes by no more than rounding.

        Args:
            rows: the rows.
            kept: whether they are scored as :meth:`score_encoded` does: once to keep prefixes, and once with them.
        """
        assert self._fast is not None
        try:
            fast = [scores for _ in range(1 + kept) for scores in self._fast.score(rows, kept)]
            plain = [
                scores
                for row in rows
                for scores in forward.score_full_forwards(self.model, [row], quantities=self._quantities)
            ]
        except (RuntimeError, BatchTooLargeError) as error:
            if not (isinstance(error, BatchTooLargeError) or forward.is_out_of_memory(error)):
                raise
            # A row that does not fit alone fails by itself later.
            return len(rows) == 1 or all(self._agrees([row], kept) for row in rows)
        self.self_check = compare(fast, plain * (1 + kept), self.config.dtype)
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
