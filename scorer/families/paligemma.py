"""PaliGemma 1 and 2: prompt and image see each other in both directions, and the caption is a causal suffix.

A model tuned for captioning has no chat template. Its processor writes image tokens, BOS, prompt, line break, and
behind a caption EOS.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from scorer.families.base import Family
from scorer.families.targets import to_size
from scorer.types import Int64Array

TEMPLATE: Final = (
    "{% if messages | map(attribute='role') | list != ['user', 'assistant'] %}"
    "{{ raise_exception('PaliGemma takes one user turn and one assistant turn') }}{% endif %}"
    "{% set ns = namespace(text=false) %}"
    "{% for part in messages[0]['content'] %}"
    "{% if part['type'] == 'image' %}"
    "{% if ns.text %}{{ raise_exception('PaliGemma takes images ahead of the prompt only') }}{% endif %}<image>"
    "{% else %}{% set ns.text = true %}{% endif %}{% endfor %}"
    "{{ bos_token }}"
    "{% for part in messages[0]['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '\n' }}"
    "{% for part in messages[1]['content'] %}{{ part['text'] }}{% endfor %}"
    "{{ eos_token }}"
)


def suffix_token_types(ids: Int64Array, first_label: int, image_token_id: int) -> dict[str, Int64Array]:
    """Return 1 from the first label on; in the prefix, labels would be visible to the tokens that predict them."""
    return {"token_type_ids": (np.arange(len(ids)) >= first_label).astype(ids.dtype)}


def prefix_block(ids: Int64Array, first_label: int, image_token_id: int) -> Int64Array:
    """Return one block for all that stands before the first label."""
    return np.where(np.arange(len(ids)) < first_label, 0, -1)


def softcap(config: Any) -> float | None:
    """Return the language model's soft-cap, which the class applies; only PaliGemma 2 has one."""
    cap: float | None = getattr(config.get_text_config(), "final_logit_softcapping", None)
    return cap


PALIGEMMA = Family(
    targets=to_size,
    uniform_blank=True,
    token_inputs=suffix_token_types,
    blocks=prefix_block,
    blocks_ignore_window=True,
    first_position=1,
    softcap=softcap,
    whole_prefix=True,
    template=TEMPLATE,
    separate_text=True,
)
