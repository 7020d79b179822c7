"""DeepSeek-VL: 16 tokens an image."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLImageProcessorPil,
    DeepseekVLProcessor,
)

from tests.scorer.families.checkpoints import common

SPECIALS = ("<image_placeholder>", "<|im_start|>", "<|im_end|>")


def make(path: Path) -> Path:
    image = SPECIALS[0]
    tokenizer = common.tokenizer([image], extra_special_tokens={"image_token": image})
    config = DeepseekVLConfig(
        text_config=common.text_config("llama", len(tokenizer)),
        vision_config=common.siglip(),
        image_token_id=tokenizer.convert_tokens_to_ids(image),
        tie_word_embeddings=False,
    )
    processor = DeepseekVLProcessor(
        DeepseekVLImageProcessorPil(size={"height": 16, "width": 16}, min_size=4),
        tokenizer,
        chat_template=common.chatml(image),
        num_image_tokens=16,
    )
    return common.save(path, DeepseekVLForConditionalGeneration, config, processor, spread=0.2)
