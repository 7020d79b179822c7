"""Report the versions that decide scores."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from scorer import __version__

SCORING: Final = ("torch", "transformers", "tokenizers", "pillow", "numpy")
"""The distributions whose versions are part of a run's fingerprint."""


def versions(*names: str) -> dict[str, str | None]:
    """Return the versions of tokensight and of the given distributions; None for one that is not installed."""
    return {"tokensight": __version__, **{name: _version(name) for name in names}}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
