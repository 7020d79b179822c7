"""Tiny random LLaVA checkpoints, made locally: the real classes, a few thousand parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

CONTEXT = 2048
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
)
VICUNA = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% elif message['role'] == 'assistant' %}ASSISTANT: {% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
    "{% if message['role'] == 'assistant' %}</s>{% else %} {% endif %}{% endfor %}"
)


def corpus() -> Iterator[str]:
    for noun in ("kite", "boat", "circle", "square"):
        for colour in ("red", "blue", "green"):
            yield f"USER: Describe the image. ASSISTANT: A {colour} {noun} over two {noun}s and a {colour} sky."
            yield f"user\nWhat is it?\nassistant\nThere is a {noun}, très {colour}, naïve 日本語 🪁 {noun}!"


CONTROL_TOKENS = ("<pad>", "<|im_start|>", "<|im_end|>", "<image>")


def byte_level_tokenizer(specials: Sequence[str] = CONTROL_TOKENS, **options: Any) -> PreTrainedTokenizerFast:
    """GPT-2 / Qwen-like: byte-level BPE, ChatML control tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|im_end|>", **options)


def ascii_alphabet(texts: Iterable[str]) -> dict[str, Any]:
    """Trainer options: what is not ASCII falls back to bytes. Named, since a mere limit picks other characters of equal
    counts in each process."""
    alphabet = sorted({"▁", *(character for text in texts for character in text if character.isascii())})
    return {"initial_alphabet": alphabet, "limit_alphabet": len(alphabet)}


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """LLaMA-like: BPE with byte fallback, a space before the first word, the tokenizer writes BOS."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    specials = ["<unk>", "<s>", "</s>"]
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=specials + pieces, **ascii_alphabet(corpus()))
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken("<image>", normalized=False, special=True)])
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def text_config(model_type: str, vocabulary: int, **options: Any) -> dict[str, Any]:
    """A language model of two layers with grouped key-value heads."""
    return {
        "model_type": model_type,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": vocabulary,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
        **options,
    }


def encoder_config(**options: Any) -> dict[str, Any]:
    """A small encoder (mostly a vision tower), its sizes as most classes name them; ``options`` add and replace."""
    return {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": 0.2,
        **options,
    }


def save_llava_files(
    path: Path, tokenizer: PreTrainedTokenizerFast, chat_template: str, context: int = 512
) -> LlavaConfig:
    """Save all of a LLaVA (16 image tokens) but its weights: enough to encode samples."""
    config = LlavaConfig(
        text_config=text_config("llama", len(tokenizer) + 3, max_position_embeddings=context),
        vision_config=encoder_config(model_type="clip_vision_model", image_size=32, patch_size=8, projection_dim=16),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    config.save_pretrained(path)
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    ).save_pretrained(path)
    return config


def make_llava(
    path: Path, tokenizer: PreTrainedTokenizerFast, chat_template: str, context: int = 512, seed: int = 0
) -> Path:
    """Save a random LLaVA (16 image tokens, 2 layers) with its processor to ``path``."""
    config = save_llava_files(path, tokenizer, chat_template, context)
    torch.manual_seed(seed)
    LlavaForConditionalGeneration(config).save_pretrained(path)
    return path
