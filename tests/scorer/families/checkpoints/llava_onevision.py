"""LLaVA-OneVision: tiles of 32 pixels, 16 image tokens each, features of large images interpolated."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
)

from tests.scorer.families.checkpoints.common import (
    chatml,
    save_model,
    save_parts,
    siglip,
    text_config,
    tokenizer,
)

SIDES = (32, 64, 96, 128)
PINPOINTS = [[height, width] for height in SIDES for width in SIDES]


def make(path: Path) -> Path:
    words = tokenizer(["<image>", "<video>"])
    save_parts(
        path,
        "LlavaOnevisionProcessor",
        words,
        LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=PINPOINTS),
        chatml("<image>"),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
    )
    config = LlavaOnevisionConfig(
        text_config=text_config("qwen2", len(words)),
        vision_config=siglip(image_size=32, patch_size=8),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio="anyres_max_9",
    )
    return save_model(path, LlavaOnevisionForConditionalGeneration, config)
