"""Byte spans of three kinds of tokenizers, trained here, on text that is unkind to offsets."""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from scorer.errors import SpanError
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


@pytest.mark.parametrize("name", ["qwen2-nfc", "nfc-trim"])
@given(text=texts)
def test_normalisation_loses_no_byte(name: str, text: str) -> None:
    """NFC rewrites letters and drops none: every byte belongs to exactly one token."""
    assert b"".join(data for _, data in spans_of(LOSSY[name](), text)) == text.encode()


def test_pieces_of_one_character_get_their_own_bytes() -> None:
    assert spans_of(byte_level(vocab=256), "é😀") == [
        ("Ã", b"\xc3"),
        ("©", b"\xa9"),
        ("ð", b"\xf0"),
        ("Ł", b"\x9f"),
        ("ĺ", b"\x98"),
        ("Ģ", b"\x80"),
    ]
    pieces = [data for token, data in spans_of(unigram(), "🦜") if token.startswith("<0x")]
    assert pieces == [b"\xf0", b"\x9f", b"\xa6", b"\x9c"]


def test_a_leading_space_belongs_to_its_token_though_offsets_are_trimmed() -> None:
    encoding = byte_level().encode("b a")
    assert encoding.tokens == ["b", "Ġa"]
    assert encoding.offsets == [(0, 1), (2, 3)]
    assert spans_of(byte_level(), "b a") == [("b", b"b"), ("Ġa", b" a")]


def test_a_dummy_prefix_has_no_bytes() -> None:
    assert spans_of(unigram(), "日")[0] == ("▁", b"")
    assert spans_of(byte_level(prefix=True, vocab=256), "ab")[:2] == [("Ġ", b""), ("a", b"a")]


def test_bytes_and_spaces_are_found_beside_a_normalised_letter() -> None:
    """The letter makes the text lossy as a whole; the pieces elsewhere are exact all the same."""
    text = "e\u0301  😀 日 "
    for nfc in (byte_level(nfc=True, vocab=256), byte_level(trim=False, nfc=True, vocab=256)):
        pieces = [data for _, data in spans_of(nfc, text)]
        assert b"".join(pieces) == text.encode()
        assert pieces[2:] == [bytes([byte]) for byte in "  😀 日 ".encode()]
    assert spans_of(unigram(nfkc=True), "日ﬁ")[:2] == [("▁", b""), ("日", "日".encode())]
    folded = [data for _, data in spans_of(unigram(nfkc=True), "ﬁ 🦜")]
    assert folded[-4:] == [b"\xf0", b"\x9f", b"\xa6", b"\x9c"]


@pytest.mark.parametrize("text", ["ab", "  a", "日", " ", ""])
@pytest.mark.parametrize("name", ["roberta", "gpt2", "gpt2-no-trim", "unigram", "llama2"])
def test_special_tokens_around_a_text_move_nothing(name: str, text: str) -> None:
    """Trimmed offsets show a leading space at (0, 0) too, and a dummy prefix comes after the special token."""
    encoding = LOSSLESS[name]().encode(text)
    tokens, offsets = ["<s>", *encoding.tokens, "</s>"], [(0, 0), *encoding.offsets, (0, 0)]
    starts, ends = token_byte_spans(text, tokens, offsets)
    plain_starts, plain_ends = token_byte_spans(text, encoding.tokens, encoding.offsets)
    size = len(text.encode())
    assert starts.tolist() == [0, *plain_starts.tolist(), size]
    assert ends.tolist() == [0, *plain_ends.tolist(), size]


def test_special_tokens_have_no_bytes_and_folded_marks_stay_with_their_letter() -> None:
    text = "Cafe\u0301 A"
    assert spans_of(wordpiece(), text)[0] == ("[CLS]", b"")
    assert spans_of(wordpiece(), text)[-1] == ("[SEP]", b"")
    assert b"".join(data for _, data in spans_of(wordpiece(), text)) == text.replace(" ", "").encode()
    nfc = byte_level(trim=False, nfc=True)
    assert b"".join(data for _, data in spans_of(nfc, text)) == text.encode()


def test_a_text_may_spell_a_byte_token() -> None:
    text = "a<0x41>b"
    pieces = spans_of(unigram(), text)
    assert ("<0x41>", b"<0x41>") in pieces
    assert b"".join(data for _, data in pieces) == text.encode()


@given(texts)
def test_char_to_byte(text: str) -> None:
    naive = [len(text[:i].encode()) for i in range(len(text) + 1)]
    assert char_to_byte(text).tolist() == naive


@pytest.mark.parametrize(
    ("tokens", "offsets", "message"),
    [
        (["a"], [], "1 tokens came with 0 offsets"),
        (["a"], [(0, 9)], r"token 0 \('a'\) has offsets \(0, 9\) in a text of 3 characters"),
        (["b", "a"], [(1, 2), (0, 1)], r"token 1 \('a'\) starts at character 0, before its predecessor"),
    ],
)
def test_offsets_of_another_text_are_refused(tokens: list[str], offsets: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(SpanError, match=message):
        token_byte_spans("abc", tokens, offsets)


def test_the_corpus_reaches_the_hard_cases() -> None:
    """Negative control: character offsets taken at face value overlap, so the tests above test something."""
    encoding = byte_level().encode("日😀 a")
    overlaps = [b[0] < a[1] for a, b in pairwise(encoding.offsets)]
    assert any(overlaps)
    to_byte = char_to_byte("日😀 a")
    claimed = sum(int(to_byte[e] - to_byte[s]) for s, e in encoding.offsets)
    assert claimed != len("日😀 a".encode())
    assert any(unicodedata.category(char).startswith("M") for char in AWKWARD)
