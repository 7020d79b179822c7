"""A byte's own token, as the tokenizers library writes it: two upper-case digits, and nothing else."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models

from scorer.token_bytes import is_byte_token, sentencepiece_bytes


@pytest.mark.parametrize("spelling", ["{:02X}", "{:02x}"])
def test_byte_fallback_is_spelled_in_upper_case(spelling: str) -> None:
    """A token ``<0x0a>`` is never what a byte is encoded as: it stands for the text that it spells."""
    tokens = [f"<0x{spelling.format(byte)}>" for byte in range(256)]
    vocabulary = {token: i for i, token in enumerate(["<unk>", *tokens])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    encoded = tokenizer.encode("\N{PARROT}\n").tokens
    if spelling == "{:02X}":
        assert all(map(is_byte_token, encoded))
        assert b"".join(map(sentencepiece_bytes, encoded)) == "\N{PARROT}\n".encode()
    else:
        assert set(encoded) == {"<unk>"}
        assert not is_byte_token("<0x0a>")
        assert sentencepiece_bytes("<0x0a>") == b"<0x0a>"
