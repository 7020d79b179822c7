"""Score how much each caption token depends on the image.

Importing this package is cheap: torch and transformers are loaded only when :class:`Scorer` or
:class:`Encoder` is first accessed, so a trainer that only reads weights never pays for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from scorer.config import ScorerConfig
from scorer.extras import needing, require
from scorer.results import TokenScores
from scorer.types import DEFAULT_PROMPT, IMAGE, EncodedSample, Sample, Turn

if TYPE_CHECKING:
    from scorer.encoding.encoder import Encoder
    from scorer.engine import Scorer

__version__ = "0.1.0"
_MODULES = {"Scorer": "scorer.engine", "Encoder": "scorer.encoding.encoder"}
__all__ = [
    "DEFAULT_PROMPT",
    "IMAGE",
    "EncodedSample",
    "Encoder",
    "Sample",
    "Scorer",
    "ScorerConfig",
    "TokenScores",
    "Turn",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        wanted_by = f"scorer.{name}"
        require("torch", "transformers", wanted_by=wanted_by)  # the module itself imports them only on use
        with needing(wanted_by):
            return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
