"""Byte spans of three kinds of tokenizers, trained here, on text that is unkind to offsets."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from scorer.spans import char_to_byte, token_byte_spans

CORPUS = [
    "a red kite over two boats and a café by the sea",
    "there is a small dog in the background, next to a tree.",
    "日本語のテキスト と 한국어 텍스트, שלום עולם, مرحبا",
    "  two  spaces\n\nand\tlines 😀 👩‍👩‍👧 naïve Å ﬁ",
] * 8

AWKWARD = (
    "abz AZ09.,<>[]#\n\t\r\u00a0"  # ASCII and white space
    "éàñÅßĠ▁Ã"  # Latin, and the characters that tokenizers use as marks
    "\u0301\u0308\u0327"  # combining marks
    "日本語字"  # CJK
    "한ᄒ\u1161\u11ab"  # Hangul, composed and not
    "שלאمر"  # right to left
    "\u200b\u200d\ufe0f\u2028"  # zero width, line separator
    "😀👩🇫🇷½ﬁ"  # astral, compatibility
)
texts = st.one_of(
    st.text(st.sampled_from(AWKWARD), max_size=40),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(["<0x41>", "a <0xE2>b", "▁", "▁▁a", "[CLS]", "##a", "<s>", "café", "cafe\u0301", " ", "\n a \n"]),
)


@functools.cache
def byte_level(*, trim: bool = True, prefix: bool = False, nfc: bool = False, vocab: int = 330) -> Tokenizer:
    """GPT-2 and RoBERTa (trimmed offsets), LLaMA 3 (not trimmed), Qwen2 (NFC)."""
    tokenizer = Tokenizer(models.BPE())
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@functools.cache
def unigram(*, scheme: str = "always", llama: bool = False, nfkc: bool = False) -> Tokenizer:
    """SentencePiece's unigram with byte fallback: T5-like Metaspace, or LLaMA 2's normalisers."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.UnigramTrainer(vocab_size=380, unk_token="<unk>", special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    spec = json.loads(tokenizer.to_str())
    spec["model"]["byte_fallback"] = True
    spec["added_tokens"] = []
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    steps = [normalizers.NFKC()] if nfkc else []
    if llama:
        tokenizer.pre_tokenizer = pre_tokenizers.Split("\x00", "isolated")
        steps += [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer


@functools.cache
def wordpiece(*, specials: bool = True) -> Tokenizer:
    """BERT: lower-cased, accents stripped, [CLS] and [SEP]."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=260, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    if specials:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tokenizer


Make = Callable[[], Tokenizer]
LOSSLESS: dict[str, Make] = {
    "gpt2": byte_level,
    "gpt2-no-trim": lambda: byte_level(trim=False),
    "roberta": lambda: byte_level(prefix=True),
    "bytes": lambda: byte_level(vocab=256),
    "unigram": unigram,
    "unigram-first": lambda: unigram(scheme="first"),
    "llama2": lambda: unigram(llama=True),
}
LOSSY: dict[str, Make] = {
    "qwen2-nfc": lambda: byte_level(trim=False, nfc=True),
    "nfc-trim": lambda: byte_level(nfc=True),
    "unigram-nfkc": lambda: unigram(nfkc=True),
    "bert": wordpiece,
}


def spans_of(tokenizer: Tokenizer, text: str) -> list[tuple[str, bytes]]:
    encoding = tokenizer.encode(text)
    starts, ends = token_byte_spans(text, encoding.tokens, encoding.offsets)
    data = text.encode()
    return [(token, data[s:e]) for token, s, e in zip(encoding.tokens, starts, ends, strict=True)]


@pytest.mark.parametrize("name", LOSSLESS)
@settings(deadline=None)
@given(text=texts)
def test_a_lossless_tokenizers_spans_partition_the_bytes(name: str, text: str) -> None:
    encoding = LOSSLESS[name]().encode(text)
    starts, ends = token_byte_spans(text, encoding.tokens, encoding.offsets)
    assert starts.dtype == ends.dtype == np.int32
    assert len(starts) == len(ends) == len(encoding.tokens)
    edges = [0, *ends.tolist()]
    assert starts.tolist() == edges[:-1]
    assert edges[-1] == len(text.encode())


@pytest.mark.parametrize("name", LOSSY)
@settings(deadline=None)
@given(text=texts)
def test_a_normalising_tokenizers_spans_are_ordered_and_disjoint(name: str, text: str) -> None:
    encoding = LOSSY[name]().encode(text)
    starts, ends = token_byte_spans(text, encoding.tokens, encoding.offsets)
    flat = np.stack([starts, ends], axis=1).ravel()
    assert np.all(np.diff(flat) >= 0)
    assert len(flat) == 0 or (flat[0] >= 0 and flat[-1] <= len(text.encode()))
    # Tokens hold the characters that they claim, from their first byte to their last.
    to_byte = char_to_byte(text)
    covered = np.zeros(len(text.encode()), bool)
    for start, end in zip(starts, ends, strict=True):
        covered[start:end] = True
    for start, end in encoding.offsets:
        assert covered[to_byte[start] : to_byte[end]].all()
