"""Gemma 3: 4 tokens an image, one sliding layer and one full."""

from __future__ import annotations

from pathlib import Path

from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessorPil, Gemma3Processor

from tests.scorer.families.checkpoints import common

SPECIALS = ("<start_of_image>", "<end_of_image>", "<image_soft_token>", "<start_of_turn>", "<end_of_turn>")
TEMPLATE = (
    "{% for message in messages %}<start_of_turn>{{ message['role'] | replace('assistant', 'model') }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<start_of_image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<end_of_turn>\n{% endfor %}"
)


def make(path: Path, sliding_window: int = common.CONTEXT) -> Path:
    tokens = {"boi_token": SPECIALS[0], "eoi_token": SPECIALS[1], "image_token": SPECIALS[2]}
    tokenizer = common.tokenizer(SPECIALS, extra_special_tokens=tokens)
    boi, eoi, image = (tokenizer.convert_tokens_to_ids(token) for token in SPECIALS[:3])
    text = common.text_config(
        "gemma3_text",
        len(tokenizer),
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=sliding_window,
        layer_types=["sliding_attention", "full_attention"],
        # In the configuration, and not applied by the class: an engine that follows the configuration is found out.
        final_logit_softcapping=2.0,
    )
    config = Gemma3Config(
        text_config=text,
        vision_config=common.siglip(),
        mm_tokens_per_image=4,
        boi_token_index=boi,
        eoi_token_index=eoi,
        image_token_index=image,
        tie_word_embeddings=False,
    )
    processor = Gemma3Processor(
        Gemma3ImageProcessorPil(size={"height": 16, "width": 16}), tokenizer, TEMPLATE, image_seq_length=4
    )
    return common.save(path, Gemma3ForConditionalGeneration, config, processor, spread=0.2)
