"""LLaVA-NeXT: tiles of 32 pixels, 16 image tokens each."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
)

from tests.scorer.families.checkpoints.common import chatml, encoder_config, save, text_config, tokenizer

PINPOINTS = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]


def make(path: Path) -> Path:
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=PINPOINTS
        ),
        tokenizer=tokenizer(["<image>"]),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chatml("<image>"),
    )
    config = LlavaNextConfig(
        text_config=text_config("llama", len(processor.tokenizer)),
        vision_config=encoder_config(model_type="clip_vision_model", image_size=32, patch_size=8, projection_dim=16),
        image_token_index=processor.image_token_id,
        vision_feature_layer=-1,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=16,
    )
    return save(path, LlavaNextForConditionalGeneration, config, processor)
