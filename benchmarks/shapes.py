"""Reference models of real shapes with random weights, and rows for them, without hub or tokenizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from scorer.families import FAMILIES
from scorer.forward import ReferenceModel
from scorer.types import Branch, EncodedSample

IMAGE_TOKENS = 576
LLAVA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_key_value_heads": 32}
CLIP_L_336 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
LLAVA_300M = {"hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16, "num_key_value_heads": 16}
QWEN_300M = {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2}
"""The layers of Qwen2-0.5B, as in LLaVA-OneVision-0.5B, to be used with its tied vocabulary of 152k."""
CLIP_B_336 = {
    **CLIP_L_336,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
SMALL = {"hidden_size": 256, "intermediate_size": 704, "num_attention_heads": 8, "num_key_value_heads": 8}


def small_vision(size: int) -> dict[str, Any]:
    """Return a small tower for images of ``size`` pixels per side, (size / 14) ** 2 image tokens."""
    return {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": size,
        "patch_size": 14,
        "projection_dim": 128,
    }


def llava(
    text: dict[str, Any],
    layers: int,
    vision: dict[str, Any],
    vocabulary: int = 32064,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    tied: bool = False,
) -> ReferenceModel:
    """Build a LLaVA of the given shape; on the meta device it has shapes but no values.

    Uses eager attention on the meta device, because sdpa first checks whether the mask is all ones.
    """
    config = LlavaConfig(
        text_config={
            "model_type": "llama",
            "num_hidden_layers": layers,
            "vocab_size": vocabulary,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": tied,
            **text,
        },
        tie_word_embeddings=tied,
        vision_config={"model_type": "clip_vision_model", **vision},
        image_token_id=32000,
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
    )
    torch.manual_seed(0)
    with torch.device(device):
        attention = "eager" if device == "meta" else "sdpa"
        model = LlavaForConditionalGeneration._from_config(config, attn_implementation=attention, dtype=dtype)
    return ReferenceModel(model.eval().requires_grad_(False), FAMILIES["llava"])


def row(index: int, prompt: int, caption: int, image_tokens: int = IMAGE_TOKENS, size: int = 336) -> EncodedSample:
    """Build a row as the encoder does: image, ``prompt`` tokens, ``caption`` labels; contrast blank."""
    rng = np.random.default_rng(index)
    prompt_ids = np.random.default_rng(0).integers(5, 30000, prompt)
    ids = np.concatenate([[1], np.full(image_tokens, 32000), prompt_ids, rng.integers(5, 30000, caption)])
    label_index = np.arange(len(ids) - caption, len(ids))
    attend = np.ones(len(ids), dtype=np.bool_)
    image = rng.standard_normal((1, 3, size, size)).astype(np.float32)
    blank = np.zeros_like(image)
    zeros = np.zeros(caption, dtype=np.int32)
    return EncodedSample(
        sample_id=str(index),
        token_ids=ids[label_index].astype(np.int32),
        token_starts=zeros,
        token_ends=zeros,
        token_turns=zeros.astype(np.int16),
        text_hash="",
        clean=Branch(ids, attend, label_index, {"pixel_values": image}, str(index).encode()),
        contrast=Branch(ids, attend, label_index, {"pixel_values": blank}, b"blank"),
    )


def with_caption(row: EncodedSample, number: int, caption: int) -> EncodedSample:
    """Return the same image and prompt with another caption."""
    rng = np.random.default_rng([7, number])
    start = int(row.clean.label_index[0])
    ids = np.concatenate([row.clean.input_ids[:start], rng.integers(5, 30000, caption)])
    branch = {"input_ids": ids, "attend": np.ones(len(ids), dtype=np.bool_), "label_index": np.arange(start, len(ids))}
    return replace(
        row,
        sample_id=f"{row.sample_id}-{number}",
        token_ids=ids[start:].astype(np.int32),
        clean=replace(row.clean, **branch),
        contrast=replace(row.contrast, **branch),
    )
