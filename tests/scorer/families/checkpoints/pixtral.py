"""The vision tower and processor that Pixtral and Mistral 3 share."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from transformers import PixtralImageProcessorPil, PreTrainedTokenizerFast

from tests.scorer.families.checkpoints.common import chatml, encoder_config, save_parts, tokenizer

SPECIAL_TOKENS: Final = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")

VISION: Final = encoder_config(model_type="pixtral", hidden_size=32, intermediate_size=48, image_size=64, patch_size=4)


def save_processor(path: Path, spatial_merge_size: int) -> PreTrainedTokenizerFast:
    """The processor's files, and its tokenizer."""
    words = tokenizer(SPECIAL_TOKENS)
    image_processor = PixtralImageProcessorPil(
        size={"longest_edge": 32 * spatial_merge_size}, patch_size={"height": 4, "width": 4}
    )
    options = {"patch_size": 4, "spatial_merge_size": spatial_merge_size}
    save_parts(path, "PixtralProcessor", words, image_processor, chatml("[IMG]"), **options)
    return words
