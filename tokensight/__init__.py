"""Provide the command ``tokensight``, and the public names of :mod:`scorer` under the distribution's name.

Importing this package loads nothing else; a name is looked up in :mod:`scorer` when it is first accessed::

    command.py   the table of subcommands, and the function that runs one
    version.py   ``tokensight version``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scorer import (
        DEFAULT_PROMPT,
        IMAGE,
        EncodedSample,
        Encoder,
        Sample,
        Scorer,
        ScorerConfig,
        TokenScores,
        Turn,
        __version__,
    )

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
    if name in __all__:
        import scorer

        return getattr(scorer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
