"""Families' checkpoints and special tokens, by name, for their own tests and for the negative controls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.scorer.families.checkpoints import (
    deepseek_vl,
    gemma3,
    idefics3,
    instructblip,
    internvl,
    llava,
    llava_next,
    llava_onevision,
    mistral3,
    mllama,
    paligemma,
    pixtral,
    qwen_vl,
)
from tests.scorer.families.samples import Case

CHATML: Final = ("<|im_start|>", "<|im_end|>")

CASES: Final[dict[str, tuple[Any, dict[str, Any]]]] = {
    "llava": (llava.make, {"special_tokens": ("<image>", *CHATML)}),
    "llava_pixtral": (
        llava.make_pixtral,
        # Shrunk to 32 pixels, a strip of 1500 x 40 has no height left, and the processor gives up.
        {"special_tokens": (*pixtral.SPECIAL_TOKENS, *CHATML), "refused": frozenset({(1500, 40)})},
    ),
    "llava_next": (llava_next.make, {"special_tokens": ("<image>", *CHATML)}),
    "llava_onevision": (
        llava_onevision.make,
        {"special_tokens": ("<image>", "<video>", *CHATML), "nested_images": True},
    ),
    "qwen2_vl": (qwen_vl.make_2, {"special_tokens": (*qwen_vl.SPECIAL_TOKENS, *CHATML)}),
    "qwen2_5_vl": (qwen_vl.make_2_5, {"special_tokens": (*qwen_vl.SPECIAL_TOKENS, *CHATML)}),
    "qwen3_vl": (qwen_vl.make_3, {"special_tokens": (*qwen_vl.SPECIAL_TOKENS, *CHATML)}),
    "internvl": (internvl.make, {"special_tokens": (*internvl.SPECIAL_TOKENS, *CHATML)}),
    "mistral3": (
        mistral3.make,
        {"special_tokens": (*pixtral.SPECIAL_TOKENS, *CHATML), "refused": frozenset({(1, 1), (8, 8)})},
    ),
}
"""Name → the checkpoint's builder, and the rest of its :class:`Case`."""


MAKERS: Final[dict[str, Callable[[Path], Path]]] = {
    **{name: make for name, (make, _) in CASES.items()},
    "deepseek_vl": deepseek_vl.make,
    "gemma3": gemma3.make,
    "idefics3": idefics3.make_idefics3,
    "instructblip": instructblip.make,
    "mllama": mllama.make,
    "paligemma": partial(paligemma.make, version=1),
    "paligemma2": partial(paligemma.make, version=2),
    "smolvlm": idefics3.make_smolvlm,
}
"""Name → the checkpoint's builder, for every family and its variants."""


def case_of(name: str, checkpoint: Callable[[Any], Path]) -> Case:
    """The case under ``name``, its checkpoint made at first use."""
    make, rest = CASES[name]
    return Case(path=checkpoint(make), **rest)
