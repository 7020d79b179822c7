"""Llama 3.2 Vision: up to 4 tiles an image; one layer of self-attention, one of cross-attention."""

from __future__ import annotations

from pathlib import Path

from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaImageProcessorPil, MllamaProcessor

from tests.scorer.families.checkpoints import common

SPECIALS = ("<|image|>", "<|begin_of_text|>", "<|eot_id|>", "<|python_tag|>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|image|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|eot_id|>{% endfor %}"
)


def make(path: Path) -> Path:
    tokenizer = common.tokenizer([*SPECIALS[1:], SPECIALS[0]])  # the image's token lies behind the vocabulary
    tokenizer.bos_token = SPECIALS[1]
    image = tokenizer.convert_tokens_to_ids(SPECIALS[0])
    text = common.text_config("mllama_text_model", image, num_hidden_layers=3, cross_attention_layers=[1])
    text |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    vision = common.encoder_config(
        num_global_layers=1,
        attention_heads=2,
        image_size=16,
        patch_size=4,
        vision_output_dim=48,
        intermediate_layers_indices=[0],
        max_num_tiles=4,
    )
    config = MllamaConfig(text_config=text, vision_config=vision, image_token_index=image)
    processor = MllamaProcessor(
        MllamaImageProcessorPil(size={"height": 16, "width": 16}, max_image_tiles=4), tokenizer, TEMPLATE
    )
    return common.save(path, MllamaForConditionalGeneration, config, processor, spread=0.2)
