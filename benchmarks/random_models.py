"""Reference models of real shapes with random weights, created on the device, with real processors and tokenizers.

They all use the packaged model's tokenizer; the vocabulary of the projection keeps its real size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    CLIPImageProcessorPil,
    LlavaConfig,
    Qwen2_5_VLConfig,
    Qwen2VLImageProcessorPil,
)

from benchmarks import shapes
from scorer.checkpoint.files import Checkpoint
from scorer.checkpoint.loading import resolve_device
from scorer.config import ScorerConfig
from scorer.mini import MODEL_PATH

CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- for part in message['content'] -%}
{{ 'IMAGE' if part['type'] == 'image' else part['text'] }}
{%- endfor -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
"""


@dataclass(frozen=True)
class RandomCheckpoint(Checkpoint):
    """A checkpoint without weights, which are drawn at random on the device."""

    def load_model(self, config: ScorerConfig) -> Any:
        """Return the model with random weights, frozen and in evaluation mode."""
        torch.manual_seed(0)
        options = {"dtype": getattr(torch, config.dtype), "attn_implementation": config.attention}
        with torch.device(resolve_device(config.device)):
            model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(self.path), **options)
        return model.eval().requires_grad_(False)


def llava_7b(path: Path, tiny: bool) -> RandomCheckpoint:
    """Create LLaVA-1.5-7B: 576 image tokens of a CLIP ViT-L/14 at 336 pixels, Llama with 32 layers of 4096."""
    words = AutoTokenizer.from_pretrained(MODEL_PATH)
    text = {
        "model_type": "llama",
        **shapes.LLAVA_7B,
        "num_hidden_layers": 32,
        "vocab_size": 32064,
        "max_position_embeddings": 4096,
    }
    vision = {"model_type": "clip_vision_model", **shapes.CLIP_L_336}
    side = 336
    if tiny:
        side = 56
        text |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
        text |= {"num_key_value_heads": 4, "vocab_size": 2048}
        vision |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        vision |= {"image_size": side}
    config = LlavaConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    options = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    words.chat_template = CHATML.replace("IMAGE", "<image>\\n")
    return _saved(path, config, words, image_processor, {"processor_class": "LlavaProcessor", **options})


def qwen2_5_vl_7b(path: Path, tiny: bool) -> RandomCheckpoint:
    """Create Qwen2.5-VL-7B: any resolution, 28 layers of 3584 with grouped queries, a vocabulary of 152,064."""
    words = AutoTokenizer.from_pretrained(MODEL_PATH)
    specials = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    words.add_special_tokens({"additional_special_tokens": list(specials)})
    text = {
        "model_type": "qwen2_5_vl_text",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152_064,
        "max_position_embeddings": 128_000,
        "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
    }
    vision = {
        "model_type": "qwen2_5_vl_vision",
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "out_hidden_size": 3584,
    }
    pixels = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    if tiny:
        text |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
        text |= {"num_key_value_heads": 1, "vocab_size": 2048}
        text["rope_parameters"] = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1e6}
        vision |= {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
        vision |= {"fullatt_block_indexes": [1]}
        pixels["longest_edge"] = 28 * 28 * 16
    ids = dict(
        zip(("vision_start", "vision_end", "image", "video"), words.convert_tokens_to_ids(specials), strict=True)
    )
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=False,
        **{f"{name}_token_id": number for name, number in ids.items()},
    )
    image_processor = Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, temporal_patch_size=2, size=pixels)
    words.chat_template = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    return _saved(path, config, words, image_processor, {"processor_class": "Qwen2_5_VLProcessor"})


def llava_300m(folder: Path) -> Path:
    """Create LLaVA with 300 M parameters and a vocabulary of 32k, weights included; return its directory."""
    path = folder / "llava-300m"
    words = AutoTokenizer.from_pretrained(MODEL_PATH)
    model = shapes.llava(shapes.LLAVA_300M, 15, shapes.CLIP_B_336 | {"num_hidden_layers": 6}).model
    model.config.image_token_id = words.convert_tokens_to_ids("<image>")
    model.save_pretrained(path)
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, do_convert_rgb=True
    )
    options = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    words.chat_template = CHATML.replace("IMAGE", "<image>\\n")
    _saved(path, model.config, words, image_processor, {"processor_class": "LlavaProcessor", **options})
    return path


SHAPES = {"LLaVA-1.5-7B": llava_7b, "Qwen2.5-VL-7B": qwen2_5_vl_7b}


def _saved(path: Path, config: Any, words: Any, image_processor: Any, processor: dict[str, Any]) -> RandomCheckpoint:
    for part in (config, words, image_processor):
        part.save_pretrained(path)
    (path / "processor_config.json").write_text(json.dumps(processor))
    return RandomCheckpoint(path.name, None, path)
