"""The reference model of the service: loaded once, with a scorer for each contrast and for what requests combine."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
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
_COMBINED: Final = 4
"""How many combinations of contrasts are kept ready; each holds contrast prefixes of its own."""


class ScorerPool:
    """One scorer per contrast, and one for each combination that was asked for lately, all sharing one model.

    Encode from any thread; score from one thread only.

    Attributes:
        settings: The settings of the service.
        fingerprints: Fingerprints by contrast; scores with equal fingerprints are comparable.
    """

    def __init__(self, scorers: dict[str, Scorer], settings: Settings) -> None:
        self.settings = settings
        self._scorers = scorers
        self._checked = [scorer.encoder.encode(_check_sample()) for scorer in scorers.values()]
        self.fingerprints: dict[str, str] = {}
        self._combined: OrderedDict[tuple[str, ...], Scorer] = OrderedDict()
        self._combined_fingerprints: dict[tuple[str, ...], str] = {}
        self._combining = threading.Lock()

    @classmethod
    def load(cls, settings: Settings) -> ScorerPool:
        """Load the model with every configured contrast that it supports. Raises ModelError."""
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
                    "the contrast %s is not available for model %s and will not be served", contrast, settings.model
                )
            elif contrast != settings.contrast:
                scorers[contrast] = default.with_contrast(contrast)
        return cls(scorers, settings)

    @property
    def contrasts(self) -> tuple[str, ...]:
        """The served contrasts, the default first."""
        return tuple(self._scorers)

    @property
    def batch_tokens(self) -> int:
        """Token budget of one forward pass, as far as memory has allowed."""
        return self._scorers[self.settings.contrast].max_batch_tokens

    def encoder(self, contrasts: Sequence[str]) -> Encoder:
        """Return the encoder of served contrasts, which share one clean pass."""
        return self._scorer(contrasts).encoder

    def score(self, contrasts: Sequence[str], rows: Sequence[EncodedSample]) -> list[Result]:
        """Return one result per row, in order."""
        scorer = self._scorer(contrasts)
        results = scorer.score_encoded(rows)
        if len(contrasts) > 1:  # after a batch, which decides the path, a part of the fingerprint
            self._combined_fingerprints[tuple(contrasts)] = fingerprint_digest(scorer.fingerprint)
        return results

    def fingerprint(self, contrasts: Sequence[str]) -> str:
        """Return the fingerprint of contrasts that were scored."""
        first, *further = contrasts
        return self._combined_fingerprints[tuple(contrasts)] if further else self.fingerprints[first]

    def _scorer(self, contrasts: Sequence[str]) -> Scorer:
        first, *further = contrasts
        if not further:
            return self._scorers[first]
        key = tuple(contrasts)
        with self._combining:  # encoding threads and the model's
            if key not in self._combined:
                self._combined[key] = self._scorers[first].with_contrast(*key)
            self._combined.move_to_end(key)
            if len(self._combined) > _COMBINED:
                self._combined.popitem(last=False)
            return self._combined[key]

    def check(self) -> None:
        """Score a known image with every contrast, which warms up the model and checks that it works.

        Raises:
            ModelError: The image could not be scored. Exceptions of the model propagate.
        """
        for row, (contrast, scorer) in zip(self._checked, self._scorers.items(), strict=True):
            (result,) = scorer.score_encoded([row])
            if isinstance(result, Failure):
                raise ModelError(
                    f"model {self.settings.model} cannot score a red square ({contrast}): {result.message}"
                )
            assert isinstance(result, TokenScores)
        if not self.fingerprints:  # after the first batch, which decides the path, a part of the fingerprint
            self.fingerprints = {name: fingerprint_digest(one.fingerprint) for name, one in self._scorers.items()}

    def describe(self) -> dict[str, Any]:
        """Return the description of the model for /v1/models."""
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
