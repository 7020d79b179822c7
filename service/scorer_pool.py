"""The reference model as the service runs it: loaded once, one scorer for each contrast."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scorer.allocator import keep_freed_memory
from scorer.config import fingerprint_digest
from scorer.contrasts import CONTRASTS
from scorer.errors import ModelError
from scorer.results import Failure, Result, TokenScores
from scorer.types import EncodedSample, Sample
from service.settings import Settings

if TYPE_CHECKING:
    from scorer.encoding.encoder import Encoder
    from scorer.engine import Scorer

logger = logging.getLogger(__name__)

_CHECK_TEXT: Final = "A red square."


class ScorerPool:
    """Scorers by contrast on the same weights.

    Encoding may be called from any thread, scoring from one.

    Attributes:
        settings: the service's.
        fingerprints: by contrast; equal ones have comparable scores.
    """

    def __init__(self, scorers: dict[str, Scorer], settings: Settings) -> None:
        self.settings = settings
        self._scorers = scorers
        self._checked = [scorer.encoder.encode(_check_sample()) for scorer in scorers.values()]
        self.fingerprints: dict[str, str] = {}

    @classmethod
    def load(cls, settings: Settings) -> ScorerPool:
        """Load the model and every contrast that it has. Raises ModelError."""
        import torch
        from transformers.utils.logging import disable_progress_bar

        from scorer.engine import Scorer

        disable_progress_bar()
        keep_freed_memory()
        if settings.torch_threads:
            torch.set_num_threads(settings.torch_threads)
        default = Scorer.load(settings.model, settings.scorer_config(), settings.revision)
        scorers: dict[str, Scorer] = {settings.contrast: default}
        for contrast in settings.contrasts:
            if contrast not in default.checkpoint.family.contrasts:
                logger.warning(
                    "the contrast %s is not defined for model %s and is not served", contrast, settings.model
                )
            elif contrast != settings.contrast:
                scorers[contrast] = default.with_contrast(contrast)
        return cls(scorers, settings)

    @property
    def contrasts(self) -> tuple[str, ...]:
        """Those that are served, the default first."""
        return tuple(self._scorers)

    @property
    def batch_tokens(self) -> int:
        """Tokens of one forward pass, as memory has allowed so far."""
        return self._scorers[self.settings.contrast].budget.tokens

    def encoder(self, contrast: str) -> Encoder:
        """The CPU half of scoring."""
        return self._scorers[contrast].encoder

    def score(self, contrast: str, rows: Sequence[EncodedSample]) -> list[Result]:
        """One result per row, in order."""
        return self._scorers[contrast].score_encoded(rows)

    def check(self) -> None:
        """Score a known picture with every contrast: warms the model, and shows that it works.

        Raises:
            ModelError: it gives no scores. Whatever the model raises passes through.
        """
        for row, (contrast, scorer) in zip(self._checked, self._scorers.items(), strict=True):
            (result,) = scorer.score_encoded([row])
            if isinstance(result, Failure):
                raise ModelError(
                    f"model {self.settings.model} cannot score a red square ({contrast}): {result.message}"
                )
            assert isinstance(result, TokenScores)
        if not self.fingerprints:  # after the first batch, which decides the path that is part of them
            self.fingerprints = {name: fingerprint_digest(one.fingerprint) for name, one in self._scorers.items()}

    def describe(self) -> dict[str, Any]:
        """What /v1/models says."""
        default = self._scorers[self.settings.contrast]
        return {
            "name": self.settings.model_name,
            "revision": default.checkpoint.revision,
            "type": default.checkpoint.config.model_type,
            "fingerprint": self.fingerprints[self.settings.contrast],
            "fingerprints": self.fingerprints,
            "contrasts": list(self.contrasts),
            "contrast_words": {name: CONTRASTS[name].phrase for name in self.contrasts},
            "contrast": self.settings.contrast,
            "prompt": self.settings.prompt,
            "dtype": self.settings.dtype,
            "device": str(default.model.device),
            "path": {name: scorer.path for name, scorer in self._scorers.items()},
        }


def _check_sample() -> Sample:
    from PIL import Image

    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[16:48, 16:48, 0] = 255
    return Sample.caption("check", Image.fromarray(pixels), _CHECK_TEXT)
