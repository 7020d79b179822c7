"""LLaVA 1.5's kind, and the class with a Pixtral vision tower."""

from __future__ import annotations

from pathlib import Path

from transformers import LlavaConfig, LlavaForConditionalGeneration

from tests.scorer import tiny
from tests.scorer.families.checkpoints import pixtral
from tests.scorer.families.checkpoints.common import CONTEXT, save_model, text_config


def make(path: Path) -> Path:
    return tiny.make_llava(path, tiny.byte_level_tokenizer(), tiny.CHATML, context=CONTEXT)


def make_pixtral(path: Path) -> Path:
    words = pixtral.save_processor(path, spatial_merge_size=1)
    config = LlavaConfig(
        text_config=text_config("mistral", len(words), head_dim=8, sliding_window=None),
        vision_config=pixtral.VISION,
        image_token_id=words.convert_tokens_to_ids("[IMG]"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=1,
    )
    return save_model(path, LlavaForConditionalGeneration, config)
