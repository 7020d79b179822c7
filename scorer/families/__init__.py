"""What differs between model families, one small record each. Everything else is the same code for all.

Every family listed here is verified on tiny random checkpoints (tests/scorer/families): the fast path equals the plain
one, in any batch. A family that is not listed takes the plain path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from scorer.families.base import ALL_CONTRASTS, Family
from scorer.families.llava import LLAVA

FAMILIES: Final[Mapping[str, Family]] = {
    "llava": LLAVA,
}
"""By ``config.model_type``."""

__all__ = ["ALL_CONTRASTS", "FAMILIES", "Family"]
