"""Map each token of a trainer's vocabulary to its bytes, so that texts can be found in token ids alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from scorer.errors import SpanError
from scorer.token_bytes import byte_level_bytes, is_byte_token, sentencepiece_bytes
from scorer.types import BoolArray, Int64Array

_PROBE: Final = "a b"


class TokenBytes:
    """The bytes of every token of one vocabulary.

    Works for tokenizers that preserve the bytes of a text (byte-level BPE; SentencePiece, with or without byte
    fallback), as those of vision-language models do. Special tokens, which only a template writes, have no bytes.

    Attributes:
        token_bytes: the bytes of each id's token; empty for special tokens and unused ids.
        lengths: int64 [V], the number of those bytes.
        special: bool [V], whether the token is special; also true for unused ids.

    Args:
        tokenizer: a ``tokenizers.Tokenizer``, a fast tokenizer of transformers, or a processor that has one.

    Raises:
        SpanError: not a fast tokenizer, or one that does not preserve the bytes of a text (WordPiece, lower-casing).
    """

    def __init__(self, tokenizer: Any) -> None:
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not hasattr(backend, "get_added_tokens_decoder"):
            raise SpanError(
                f"{type(tokenizer).__name__} is not a fast tokenizer; give one of the tokenizers library, a fast one "
                "of transformers, or a processor that has one"
            )
        bytes_of = _alphabet(tokenizer, backend)
        vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
        size = max(vocabulary.values(), default=-1) + 1
        self.token_bytes = [b""] * size
        self.special: BoolArray = np.ones(size, dtype=np.bool_)
        for token, index in vocabulary.items():
            stands_for = bytes_of(token)
            self.token_bytes[index] = token.encode() if stands_for is None else stands_for
            self.special[index] = False
        for index, added in backend.get_added_tokens_decoder().items():
            if bytes_of is sentencepiece_bytes and is_byte_token(added.content):
                continue  # an ordinary token, though some tokenizers list it as special
            self.token_bytes[index] = b"" if added.special else added.content.encode()
            self.special[index] = added.special
        self.lengths: Int64Array = np.array([len(data) for data in self.token_bytes], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.token_bytes)


def _alphabet(tokenizer: Any, backend: Any) -> Callable[[str], bytes | None]:
    """Return the function that decodes this vocabulary's tokens, found by trying both alphabets on a probe."""
    tokens = backend.encode(_PROBE, add_special_tokens=False).tokens
    for bytes_of in (byte_level_bytes, sentencepiece_bytes):
        spelled = b"".join(bytes_of(token) or b"" for token in tokens)
        if spelled in (_PROBE.encode(), f" {_PROBE}".encode()):
            return bytes_of
    raise SpanError(
        f"{type(tokenizer).__name__} does not preserve the bytes of a text: it splits {_PROBE!r} into {tokens}; only "
        "byte-level and SentencePiece tokenizers are supported: project onto your own byte spans with "
        "scorer.spans.project"
    )
