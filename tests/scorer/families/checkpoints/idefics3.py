"""Idefics3 and SmolVLM: tiles of 4 tokens, up to 2 × 2 of them and the whole image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)

from tests.scorer.families.checkpoints import common

SPECIALS = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<row_1_col_2>")
_TILES = tuple(f"<row_{i}_col_{j}>" for i in (1, 2) for j in (1, 2))
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}"
)


def make_idefics3(path: Path) -> Path:
    return _make(path, Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessorPil)


def make_smolvlm(path: Path) -> Path:
    """Saved without its own processor class, which cannot be made without num2words; the files are the same."""
    _make(path, SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMImageProcessorPil)
    file = path / "processor_config.json"
    file.write_text(file.read_text().replace("Idefics3Processor", "SmolVLMProcessor"))
    return path


def _make(path: Path, config_class: Any, model_class: Any, image_processor: Any) -> Path:
    tokenizer = common.tokenizer([*SPECIALS[:4], *_TILES])
    config = config_class(
        text_config=common.text_config("llama", len(tokenizer)),
        vision_config=common.encoder_config(image_size=16, patch_size=4),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = Idefics3Processor(
        image_processor(size={"longest_edge": 32}, max_image_size={"longest_edge": 16}),
        tokenizer,
        image_seq_len=4,
        chat_template=TEMPLATE,
    )
    return common.save(path, model_class, config, processor, spread=0.2)
