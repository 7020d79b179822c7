"""InstructBLIP on a LLaMA: 3 query tokens; a tokenizer that writes BOS and a space before the first word."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertTokenizer,
    BlipImageProcessorPil,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)

from tests.scorer import tiny
from tests.scorer.families.checkpoints import common

SPECIALS = ("<image>", "<s>", "</s>")


def qformer_tokenizer() -> BertTokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(tiny.corpus(), trainers.WordPieceTrainer(vocab_size=300, special_tokens=specials))
    made = BertTokenizer(vocab=tokenizer.get_vocab())
    made.model_max_length = 100
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return made


def make(path: Path) -> Path:
    tokenizer = tiny.sentencepiece_tokenizer()
    qformer = qformer_tokenizer()
    processor = InstructBlipProcessor(
        BlipImageProcessorPil(size={"height": 16, "width": 16}), tokenizer, qformer, num_query_tokens=3
    )
    config = InstructBlipConfig(
        text_config=common.text_config("llama", len(tokenizer)),
        vision_config=common.encoder_config(image_size=16, patch_size=4),
        qformer_config=common.encoder_config(
            vocab_size=len(qformer),
            encoder_hidden_size=24,
            max_position_embeddings=100,
            cross_attention_frequency=1,
        ),
        num_query_tokens=3,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return common.save(path, InstructBlipForConditionalGeneration, config, processor, spread=0.2)
