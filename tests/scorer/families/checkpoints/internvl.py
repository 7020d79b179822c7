"""InternVL: tiles of 32 pixels, four image tokens each."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from transformers import GotOcr2ImageProcessorPil, InternVLConfig, InternVLForConditionalGeneration

from tests.scorer.families.checkpoints.common import (
    chatml,
    encoder_config,
    save_model,
    save_parts,
    text_config,
    tokenizer,
)

_NAMES: Final = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
SPECIAL_TOKENS: Final = tuple(_NAMES.values())


def make(path: Path) -> Path:
    words = tokenizer(SPECIAL_TOKENS, extra_special_tokens=_NAMES)
    image_processor = GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=6
    )
    save_parts(path, "InternVLProcessor", words, image_processor, chatml("<IMG_CONTEXT>"), image_seq_length=4)
    config = InternVLConfig(
        text_config=text_config("qwen2", len(words)),
        vision_config=encoder_config(model_type="internvl_vision", image_size=[32, 32], patch_size=[8, 8]),
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    return save_model(path, InternVLForConditionalGeneration, config)
