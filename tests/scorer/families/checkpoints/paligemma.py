"""PaliGemma 1 and 2: 16 tokens an image, no chat template, a tokenizer that writes its own BOS unless told not to."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    GemmaTokenizer,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessorPil,
)

from tests.scorer import tiny
from tests.scorer.families.checkpoints import common

SPECIALS = ("<image>", "<bos>", "<eos>")


def gemma_tokenizer() -> GemmaTokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    texts = [*tiny.corpus(), *["\n\nA kite."] * 50]  # line breaks merge
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=specials + pieces, **tiny.ascii_alphabet(texts))
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return GemmaTokenizer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])


def make(path: Path, version: int, sliding_window: int = common.CONTEXT) -> Path:
    image_processor = SiglipImageProcessorPil(size={"height": 16, "width": 16})
    image_processor.image_seq_length = 16
    processor = PaliGemmaProcessor(image_processor, gemma_tokenizer())
    tokenizer = processor.tokenizer
    second = {
        "query_pre_attn_scalar": 8,
        "sliding_window": sliding_window,
        "layer_types": ["sliding_attention", "full_attention"],
        "final_logit_softcapping": 2.0,
        "attn_logit_softcapping": None,
    }
    text = common.text_config(
        "gemma" if version == 1 else "gemma2", len(tokenizer), head_dim=8, **(second if version == 2 else {})
    )
    config = PaliGemmaConfig(
        text_config=text,
        vision_config=common.siglip(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vocab_size=len(tokenizer),
        projection_dim=32,
        hidden_size=32,
        tie_word_embeddings=False,
    )
    return common.save(path, PaliGemmaForConditionalGeneration, config, processor, spread=0.2)
