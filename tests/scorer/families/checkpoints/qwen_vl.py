"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: patches of 4 pixels, four of them to an image token."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from tests.scorer.families.checkpoints.common import chatml, save_model, save_parts, text_config, tokenizer

SPECIAL_TOKENS: Final = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

_VISION: Final[dict[str, Any]] = {
    "depth": 2,
    "hidden_size": 32,
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "initializer_range": 0.2,
}
_VISION_2: Final = {**_VISION, "model_type": "qwen2_vl_vision", "embed_dim": 32, "mlp_ratio": 2}
_VISION_2_5: Final = {
    **_VISION,
    "model_type": "qwen2_5_vl_vision",
    "intermediate_size": 48,
    "out_hidden_size": 32,
    "window_size": 16,
    "fullatt_block_indexes": [1],
}
_VISION_3: Final = {
    **_VISION,
    "model_type": "qwen3_vl_vision",
    "intermediate_size": 48,
    "out_hidden_size": 32,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1],
}


def make_2(path: Path) -> Path:
    return _make(path, Qwen2VLForConditionalGeneration, Qwen2VLConfig, "Qwen2VLProcessor", "qwen2_vl_text", _VISION_2)


def make_2_5(path: Path) -> Path:
    classes = (Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig, "Qwen2_5_VLProcessor")
    return _make(path, *classes, "qwen2_5_vl_text", _VISION_2_5)


def make_3(path: Path) -> Path:
    classes = (Qwen3VLForConditionalGeneration, Qwen3VLConfig, "Qwen3VLProcessor")
    return _make(path, *classes, "qwen3_vl_text", _VISION_3, head_dim=8, num_hidden_layers=3)


def _make(
    path: Path, model: Any, config: Any, processor: str, text_type: str, vision: dict[str, Any], **text: Any
) -> Path:
    words = tokenizer(SPECIAL_TOKENS)
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
    made = config(
        text_config=text_config(text_type, len(words), rope_parameters=rope, **text),
        vision_config=vision,
        image_token_id=words.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=words.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=words.convert_tokens_to_ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    image_processor = Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 256, "longest_edge": 4096}
    )
    save_parts(path, processor, words, image_processor, chatml("<|vision_start|><|image_pad|><|vision_end|>"))
    return save_model(path, model, made)
