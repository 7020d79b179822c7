"""Record what differs between model families, in one small record each; all other code is shared.

Every family listed here is verified on tiny random checkpoints (tests/scorer/families): the fast path equals the plain
path in any batch. A family that is not listed takes the plain path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from scorer.families.base import Family
from scorer.families.deepseek_vl import DEEPSEEK_VL
from scorer.families.gemma3 import GEMMA3
from scorer.families.idefics3 import IDEFICS3, SMOLVLM
from scorer.families.instructblip import INSTRUCTBLIP
from scorer.families.internvl import INTERNVL
from scorer.families.llava import LLAVA
from scorer.families.llava_next import LLAVA_NEXT
from scorer.families.llava_onevision import LLAVA_ONEVISION
from scorer.families.mistral3 import MISTRAL3
from scorer.families.mllama import MLLAMA
from scorer.families.paligemma import PALIGEMMA
from scorer.families.qwen_vl import QWEN_VL
from scorer.families.unlisted import TEXT_ONLY, UNLISTED_VISION

FAMILIES: Final[Mapping[str, Family]] = {
    "deepseek_vl": DEEPSEEK_VL,
    "gemma3": GEMMA3,
    "idefics3": IDEFICS3,
    "instructblip": INSTRUCTBLIP,
    "internvl": INTERNVL,
    "llava": LLAVA,
    "llava_next": LLAVA_NEXT,
    "llava_onevision": LLAVA_ONEVISION,
    "mistral3": MISTRAL3,
    "mllama": MLLAMA,
    "paligemma": PALIGEMMA,
    "qwen2_5_vl": QWEN_VL,
    "qwen2_vl": QWEN_VL,
    "qwen3_vl": QWEN_VL,
    "smolvlm": SMOLVLM,
}
"""The verified families by ``config.model_type``."""

__all__ = ["FAMILIES", "TEXT_ONLY", "UNLISTED_VISION", "Family"]
