"""tokensight's scoring library: how much does each caption token depend on the picture?

Importing this package is cheap: torch and transformers are loaded only when :class:`Scorer` or
:class:`Encoder` is first touched, so that a trainer which only reads weights never pays for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scorer.config import ScorerConfig
from scorer.types import DEFAULT_PROMPT, IMAGE, EncodedSample, Sample, TokenScores, Turn

if TYPE_CHECKING:
    from scorer.encoding.encoder import Encoder
    from scorer.engine import Scorer

__version__ = "0.1.0"
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
    if name == "Scorer":
        from scorer.engine import Scorer

        return Scorer
    if name == "Encoder":
        from scorer.encoding.encoder import Encoder

        return Encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
