"""InstructBLIP: image tokens come before BOS, and a Q-Former reads the prompt and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scorer.errors import FailureCode, RowError
from scorer.families.base import Family
from scorer.families.targets import to_size
from scorer.types import Int64Array, PixelArray, Turn

TEMPLATE: Final = (
    "{% if messages | map(attribute='role') | list != ['user', 'assistant'] %}"
    "{{ raise_exception('InstructBLIP takes one user turn and one assistant turn') }}{% endif %}"
    "{% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}<image>{% endif %}{% endfor %}"
    "{% for part in messages[0]['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }} {% endif %}{% endfor %}"
    "{% for part in messages[1]['content'] %}{{ part['text'] }}{% endfor %}"
)


def image_text(processor: Any) -> str:
    """Return the placeholders that the processor writes before BOS when called."""
    return str(processor.image_token) * int(processor.num_query_tokens)


def qformer_inputs(
    processor: Any, turns: Sequence[Turn], ids: Int64Array, pixels: Mapping[str, PixelArray]
) -> dict[str, npt.NDArray[Any]]:
    """Return the prompt in the Q-Former's own tokens; with the caption, image features would leak the labels.

    Raises:
        RowError: ``text_too_long`` if the prompt exceeds the Q-Former's positions.
    """
    tokenizer = processor.qformer_tokenizer
    encoded = tokenizer([turns[0].text], split_special_tokens=True, return_token_type_ids=False)
    tokens = len(encoded["input_ids"][0])
    if tokens > tokenizer.model_max_length:
        raise RowError(
            FailureCode.TEXT_TOO_LONG,
            f"the prompt takes {tokens} Q-Former tokens; the Q-Former has positions for {tokenizer.model_max_length}: "
            "shorten the prompt",
        )
    return {f"qformer_{name}": np.asarray(encoded[name], np.int64) for name in ("input_ids", "attention_mask")}


@dataclass(frozen=True)
class _Base:
    """The model without its head, for which its class has no module."""

    model: Any

    def __call__(self, *, input_ids: Any, pixel_values: Any = None, **inputs: Any) -> Any:
        qformer = {name: inputs.pop(name) for name in list(inputs) if name.startswith("qformer_")}
        embeddings = self.model.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            features = self.model.get_image_features(pixel_values, **qformer, return_dict=True).pooler_output
            place = self.model.get_placeholder_mask(input_ids, inputs_embeds=embeddings)
            embeddings = embeddings.masked_scatter(place, features.to(embeddings.device, embeddings.dtype))
        return self.model.language_model.model(inputs_embeds=embeddings, **inputs)


def refusal(config: Any) -> str | None:
    """Return why FLAN-T5 variants cannot be scored: they have an encoder, so no caption continues the prompt."""
    if config.use_decoder_only_language_model:
        return None
    return f"its language model {config.text_config.model_type!r} is an encoder-decoder; use a decoder-only variant"


INSTRUCTBLIP = Family(
    targets=to_size,
    uniform_blank=True,
    template=TEMPLATE,
    image_text=image_text,
    bos_after_images=True,
    several_images=False,
    sample_inputs=qformer_inputs,
    base=_Base,
    refusal=refusal,
)
