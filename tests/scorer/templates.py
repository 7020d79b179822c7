"""Chat templates with the structural traits of those that model families ship, and what each must render.

None is a published template. The scored texts of an expected prompt stand in ⟦ ⟧, the stop tokens in ⟪ ⟫.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from scorer.encoding.encoder import Encoder
from scorer.messages import to_messages
from scorer.types import IMAGE, EncodedSample, Sample, Turn
from tests.scorer import tiny
from tests.scorer.pictures import picture

PICTURE: Final = picture(30, 20)
CAPTION: Final = "A kite."
ONE: Final = (Turn("user", (IMAGE, "What is it?")), Turn("assistant", (CAPTION,)))
# Prompts hold the captions too: a search for them would find the wrong places.
SEVERAL: Final = (*ONE, Turn("user", (f"{CAPTION} And?",)), Turn("assistant", (CAPTION,)))
WITH_SYSTEM: Final = (Turn("system", (f"Say: {CAPTION}",)), *SEVERAL)


def parts(text: str = "part['text']", image: str = "<image>") -> str:
    """Jinja for the parts of message ``m``: ``text`` is an expression, ``image`` is literal."""
    return (
        "{% for part in m['content'] %}{% if part['type'] == 'image' %}"
        + image
        + "{% else %}{{ "
        + text
        + " }}{% endif %}{% endfor %}"
    )


def chatml(text: str = "part['text']") -> str:
    """ChatML; ``text`` is the expression that writes a text."""
    return "{% for m in messages %}<|im_start|>{{ m['role'] }}\n" + parts(text) + "<|im_end|>\n{% endfor %}"


TRIMMED: Final = "part['text'] | trim"

VICUNA: Final = (
    "{% for m in messages %}{% if m['role'] == 'system' %}"
    + parts()
    + " {% elif m['role'] == 'user' %}USER: "
    + parts(image="<image>\n")
    + " {% else %}ASSISTANT: "
    + parts()
    + "</s>{% endif %}{% endfor %}"
)
LLAMA3: Final = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    + parts(TRIMMED)
    + "<|eot_id|>{% endfor %}"
)
GEMMA: Final = (
    "{{ bos_token }}{% set first = '' %}{% set turns = messages %}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'][0]['text'] + '\n\n' %}{% set turns = messages[1:] %}{% endif %}"
    "{% for m in turns %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user, assistant, …') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ first if loop.first }}"
    + parts(TRIMMED)
    + "<end_of_turn>\n{% endfor %}"
)
MISTRAL: Final = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] "
    + parts(image="<image>\n")
    + " [/INST]{% elif m['role'] == 'assistant' %} "
    + parts()
    + "</s>{% else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}{% endfor %}"
)
IDEFICS: Final = (
    "{% for m in messages %}{{ m['role'] | capitalize }}:{{ '' if m['content'][0]['type'] == 'image' else ' ' }}"
    + parts()
    + "<end_of_utterance>\n{% endfor %}"
)
QWEN2: Final = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    + parts(image="<|vision_start|><image><|vision_end|>")
    + "<|im_end|>\n{% endfor %}"
)
QWEN3: Final = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% set whole = m['content'][0]['text'] %}{% set thought = '' %}"
    "{% if '</think>' in whole %}{% set thought = whole.split('</think>')[0].split('<think>')[-1] %}{% endif %}"
    "{% if loop.last %}<think>\n{{ thought.strip('\n') }}\n</think>\n\n{% endif %}"
    "{{ whole.split('</think>')[-1].lstrip('\n') }}{% else %}" + parts() + "{% endif %}<|im_end|>\n{% endfor %}"
)
GENERATION: Final = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}" + parts() + "{% endgeneration %}{% else %}" + parts() + "{% endif %}<|im_end|>\n{% endfor %}"
)


def byte_level(*specials: str, bos: str | None = None) -> PreTrainedTokenizerFast:
    """With ``bos``, the tokenizer writes it too, ahead of a text that does not begin with it."""
    tokenizer = tiny.byte_level_tokenizer((*tiny.CONTROL_TOKENS, *specials, *([bos] if bos else [])), bos_token=bos)
    if bos:
        special = [(bos, tokenizer.convert_tokens_to_ids(bos))]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=special)
    return tokenizer


@dataclass(frozen=True)
class TemplateCase:
    """A template, its tokenizer, and what it renders of :data:`ONE` and of ``turns``, a conversation it takes."""

    template: str
    tokenizer: Callable[[], PreTrainedTokenizerFast]
    one: str = ""
    turns: tuple[Turn, ...] = ()
    several: str = ""


Load = Callable[[TemplateCase], Encoder]
"""A case → an encoder of a LLaVA with its template and tokenizer."""


CASES: Final[dict[str, TemplateCase]] = {
    "vicuna": TemplateCase(
        VICUNA,
        tiny.sentencepiece_tokenizer,
        "USER: <image>\nWhat is it? ASSISTANT: ⟦A kite.⟧⟪</s>⟫",
        WITH_SYSTEM,
        "Say: A kite. USER: <image>\nWhat is it? ASSISTANT: ⟦A kite.⟧⟪</s>⟫"
        "USER: A kite. And? ASSISTANT: ⟦A kite.⟧⟪</s>⟫",
    ),
    "llama3": TemplateCase(
        LLAMA3,
        lambda: byte_level("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", bos="<|begin_of_text|>"),
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<image>What is it?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦A kite.⟧⟪<|eot_id|>⟫",
        WITH_SYSTEM,
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nSay: A kite.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n<image>What is it?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦A kite.⟧⟪<|eot_id|>⟫"
        "<|start_header_id|>user<|end_header_id|>\n\nA kite. And?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦A kite.⟧⟪<|eot_id|>⟫",
    ),
    "gemma": TemplateCase(
        GEMMA,
        lambda: byte_level("<start_of_turn>", "<end_of_turn>", bos="<bos>"),
        "<bos><start_of_turn>user\n<image>What is it?<end_of_turn>\n<start_of_turn>model\n⟦A kite.⟧⟪<end_of_turn>⟫\n",
        WITH_SYSTEM,
        "<bos><start_of_turn>user\nSay: A kite.\n\n<image>What is it?<end_of_turn>\n"
        "<start_of_turn>model\n⟦A kite.⟧⟪<end_of_turn>⟫\n<start_of_turn>user\nA kite. And?<end_of_turn>\n"
        "<start_of_turn>model\n⟦A kite.⟧⟪<end_of_turn>⟫\n",
    ),
    "mistral": TemplateCase(
        MISTRAL,
        tiny.sentencepiece_tokenizer,
        "<s>[INST] <image>\nWhat is it? [/INST] ⟦A kite.⟧⟪</s>⟫",
        SEVERAL,
        "<s>[INST] <image>\nWhat is it? [/INST] ⟦A kite.⟧⟪</s>⟫[INST] A kite. And? [/INST] ⟦A kite.⟧⟪</s>⟫",
    ),
    "idefics": TemplateCase(
        IDEFICS,
        lambda: byte_level("<end_of_utterance>"),
        "User:<image>What is it?<end_of_utterance>\nAssistant: ⟦A kite.⟧⟪<end_of_utterance>⟫\n",
        WITH_SYSTEM,
        "System: Say: A kite.<end_of_utterance>\nUser:<image>What is it?<end_of_utterance>\n"
        "Assistant: ⟦A kite.⟧⟪<end_of_utterance>⟫\nUser: A kite. And?<end_of_utterance>\n"
        "Assistant: ⟦A kite.⟧⟪<end_of_utterance>⟫\n",
    ),
    "qwen2": TemplateCase(
        QWEN2,
        lambda: byte_level("<|vision_start|>", "<|vision_end|>"),
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><image><|vision_end|>What is it?<|im_end|>\n"
        "<|im_start|>assistant\n⟦A kite.⟧⟪<|im_end|>⟫\n",
        WITH_SYSTEM,
        "<|im_start|>system\nSay: A kite.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><image><|vision_end|>What is it?<|im_end|>\n"
        "<|im_start|>assistant\n⟦A kite.⟧⟪<|im_end|>⟫\n<|im_start|>user\nA kite. And?<|im_end|>\n"
        "<|im_start|>assistant\n⟦A kite.⟧⟪<|im_end|>⟫\n",
    ),
    "qwen3": TemplateCase(
        QWEN3,
        byte_level,
        "<|im_start|>user\n<image>What is it?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n⟦A kite.⟧⟪<|im_end|>⟫\n",
        SEVERAL,
        "<|im_start|>user\n<image>What is it?<|im_end|>\n<|im_start|>assistant\n⟦A kite.⟧⟪<|im_end|>⟫\n"
        "<|im_start|>user\nA kite. And?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n⟦A kite.⟧⟪<|im_end|>⟫\n",
    ),
    "generation": TemplateCase(
        GENERATION,
        byte_level,
        "<|im_start|>user\n<image>What is it?<|im_end|>\n<|im_start|>assistant\n⟦A kite.⟧⟪<|im_end|>⟫\n",
        SEVERAL,
        "<|im_start|>user\n<image>What is it?<|im_end|>\n<|im_start|>assistant\n⟦A kite.⟧⟪<|im_end|>⟫\n"
        "<|im_start|>user\nA kite. And?<|im_end|>\n<|im_start|>assistant\n⟦A kite.⟧⟪<|im_end|>⟫\n",
    ),
}
"""Shape of template → its case."""


def chatml_case(text: str = "part['text']") -> TemplateCase:
    """ChatML that writes its texts by the Jinja expression ``text``."""
    return TemplateCase(chatml(text), byte_level)


def encode(encoder: Encoder, turns: Sequence[Turn]) -> EncodedSample:
    return encoder.encode(Sample("row", (PICTURE,), tuple(turns)))


def caption(text: str) -> tuple[Turn, ...]:
    return (ONE[0], Turn("assistant", (text,)))


def hugging_face_inputs(encoder: Encoder, turns: Sequence[Turn], **options: Any) -> Any:
    """What the processor's own ``apply_chat_template`` makes of a conversation with its picture."""
    messages = to_messages(turns)
    for message in messages:
        message["content"] = [{**p, "image": PICTURE} if p["type"] == "image" else p for p in message["content"]]
    return encoder._processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="np", **options
    )


def assert_ids_are_hugging_faces(encoder: Encoder, row: EncodedSample, turns: Sequence[Turn]) -> None:
    ids = hugging_face_inputs(encoder, turns)["input_ids"][0]
    np.testing.assert_array_equal(row.clean.input_ids, ids[: len(row.clean.input_ids)])
    np.testing.assert_array_equal(row.clean.input_ids[row.clean.label_index], row.token_ids)
