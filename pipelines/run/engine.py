"""The engine that a run scores with: :class:`CheckpointEngine` for real runs, ``FakeEngine`` in tests.

An engine is a small record that is sent to the workers; the heavy parts are loaded there, once per process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from scorer.allocator import keep_freed_memory
from scorer.config import ScorerConfig
from scorer.extras import needing
from scorer.results import Failure, Result
from scorer.types import EncodedSample, Sample, Usage


class RowEncoder(Protocol):
    """The CPU half: turns one sample into what the model sees. A bad row returns a Failure and never raises."""

    def try_encode(self, sample: Sample) -> EncodedSample | Failure: ...


class RowScorer(Protocol):
    """The model half: turns encoded rows into one result each, in order; failures pass through."""

    @property
    def path(self) -> str:
        """How the last scores were computed; see :attr:`scorer.engine.Scorer.path`."""
        ...

    @property
    def usage(self) -> Usage:
        """Tokens that the model has run so far."""
        ...

    def score_batches(self, rows: Iterable[EncodedSample | Failure], max_batch_tokens: int) -> list[Result]:
        """See :meth:`scorer.engine.Scorer.score_batches`: results follow from the arguments alone.

        Args:
            rows: is iterated over once, in order; asking for a row may mean waiting for it.

        Raises:
            BatchTooLargeError: a batch of several rows did not fit in memory.
        """
        ...


class Engine(Protocol):
    """Loads the two halves where they are needed."""

    @property
    def max_batch_tokens(self) -> int:
        """The run's budget of one forward pass; it belongs to the fingerprint."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that determines the scores, without loading weights."""
        ...

    def check(self) -> None:
        """Refuse options that the model cannot take, without loading weights.

        Raises:
            ConfigError, ModelError: the model refuses an option.
        """
        ...

    def pinned(self, fingerprint: dict[str, Any]) -> Self:
        """Return this engine fixed to the fingerprinted revision, since workers locate the model themselves."""
        ...

    def encoder(self) -> RowEncoder: ...

    def scorer(self) -> RowScorer: ...

    def spell(self) -> Callable[[Sequence[int]], str]:
        """Return a function that decodes token ids for display; control tokens appear by name."""
        ...

    def device(self) -> str:
        """Name the device that the model would run on here, for display."""
        ...


@dataclass(frozen=True, slots=True)
class CheckpointEngine:
    """A reference model from a local directory or hub id. Imports torch and transformers only when first used."""

    model: str
    config: ScorerConfig
    revision: str | None = None

    @property
    def max_batch_tokens(self) -> int:
        return self.config.max_batch_tokens

    def fingerprint(self) -> dict[str, Any]:
        with needing("a reference model"):
            from scorer.checkpoint.fingerprint import fingerprint

        return fingerprint(self.model, self.config, self.revision)

    def check(self) -> None:
        from scorer.checkpoint.files import Checkpoint
        from scorer.encoding.encoder import Encoder
        from scorer.ranks import check_heads

        checkpoint = Checkpoint.locate(self.model, self.revision)
        Encoder(checkpoint, self.config)
        if self.config.tensor_parallel > 1:
            check_heads(checkpoint.name, checkpoint.config.get_text_config(), self.config.tensor_parallel)

    def pinned(self, fingerprint: dict[str, Any]) -> Self:
        # A branch of a hub repository may move while workers start; the fingerprinted commit does not.
        return replace(self, revision=fingerprint["revision"])

    def encoder(self) -> RowEncoder:
        from scorer.encoding.encoder import Encoder

        return Encoder.load(self.model, self.config, self.revision)

    def scorer(self) -> RowScorer:
        from transformers.utils.logging import disable_progress_bar

        from scorer.engine import Scorer

        disable_progress_bar()  # every worker's bar would break into the run's progress line
        keep_freed_memory()
        return Scorer.load(self.model, self.config, self.revision)

    def spell(self) -> Callable[[Sequence[int]], str]:
        from scorer.checkpoint.files import Checkpoint

        tokenizer = Checkpoint.locate(self.model, self.revision).load_processor().tokenizer

        def spelled(ids: Sequence[int]) -> str:
            return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

        return spelled

    def device(self) -> str:
        import torch

        from scorer.checkpoint.loading import resolve_device

        found = torch.device(resolve_device(self.config.device))
        return torch.cuda.get_device_name(found) if found.type == "cuda" else found.type
