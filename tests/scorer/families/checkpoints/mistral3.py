"""Mistral Small 3.1's kind."""

from __future__ import annotations

from pathlib import Path

from transformers import Mistral3Config, Mistral3ForConditionalGeneration

from tests.scorer.families.checkpoints import pixtral
from tests.scorer.families.checkpoints.common import save_model, text_config


def make(path: Path) -> Path:
    words = pixtral.save_processor(path, spatial_merge_size=2)
    config = Mistral3Config(
        text_config=text_config("mistral", len(words), head_dim=8, sliding_window=None),
        vision_config=pixtral.VISION,
        image_token_index=words.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )
    return save_model(path, Mistral3ForConditionalGeneration, config)
