"""What a run scores with, as the pipeline sees it: :class:`CheckpointEngine` in earnest, ``FakeEngine`` in tests.

An engine is a small record that travels to the workers; what is heavy is made there, once per process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from scorer.allocator import keep_freed_memory
from scorer.config import ScorerConfig
from scorer.extras import needing
from scorer.results import Failure, Result
from scorer.types import EncodedSample, Sample, Usage


class RowEncoder(Protocol):
    """The CPU half: one sample → what the model sees. Never raises for a row."""

    def try_encode(self, sample: Sample) -> EncodedSample | Failure: ...


class RowScorer(Protocol):
    """The model half: encoded rows → one result each, in order; failures pass through."""

    @property
    def path(self) -> str:
        """How scores are computed now; see :attr:`scorer.engine.Scorer.path`."""
        ...

    @property
    def usage(self) -> Usage:
        """Tokens run so far."""
        ...

    def score_encoded(self, rows: Sequence[EncodedSample | Failure]) -> list[Result]: ...


class Engine(Protocol):
    """Makes the two halves where they are needed."""

    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides the scores, without loading weights."""
        ...

    def pinned(self, fingerprint: dict[str, Any]) -> Self:
        """This engine as it was when fingerprinted, for workers that look for the model on their own."""
        ...

    def encoder(self) -> RowEncoder: ...

    def scorer(self) -> RowScorer: ...

    def spell(self) -> Callable[[Sequence[int]], str]:
        """What token ids spell, for people: control tokens by their names."""
        ...

    def device(self) -> str:
        """What the model would run on here, for people."""
        ...


@dataclass(frozen=True, slots=True)
class CheckpointEngine:
    """A reference model: a local directory or a hub id. Torch and transformers load at first use, not before."""

    model: str
    config: ScorerConfig
    revision: str | None = None

    def fingerprint(self) -> dict[str, Any]:
        with needing("a reference model"):
            from scorer.checkpoint.fingerprint import fingerprint

        return fingerprint(self.model, self.config, self.revision)

    def pinned(self, fingerprint: dict[str, Any]) -> Self:
        # A branch of a hub repository may move on while workers start; the commit that was fingerprinted does not.
        return replace(self, revision=fingerprint["revision"])

    def encoder(self) -> RowEncoder:
        from scorer.encoding.encoder import Encoder

        return Encoder.load(self.model, self.config, self.revision)

    def scorer(self) -> RowScorer:
        from transformers.utils.logging import disable_progress_bar

        from scorer.engine import Scorer

        disable_progress_bar()  # one a worker, in the middle of the run's own
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
