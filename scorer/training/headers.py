"""Find what a chat template writes before an answer: the text that is labelled with it where headers are trained on."""

from __future__ import annotations

import re
from typing import Any, Final

_QUESTION: Final = "\u2042question\u2042"
_ANSWER: Final = "\u2042answer\u2042"
"""Texts that no template spells."""


def template_headers(tokenizer: Any) -> set[bytes]:
    """Return the header of an answer in the tokenizer's or processor's own chat template, without special tokens and
    white space at its ends, such as ``assistant`` of ChatML; nothing if there is no template, or it writes none.

    A template that cannot be rendered is one whose header is not known, and no error: it need not be the trainer's.
    """
    if not getattr(tokenizer, "chat_template", None):
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        if not getattr(tokenizer, "chat_template", None):
            return set()
    backend = getattr(tokenizer, "tokenizer", tokenizer).backend_tokenizer
    special = [token.content for token in backend.get_added_tokens_decoder().values() if token.special]
    for content in (lambda text: text, lambda text: [{"type": "text", "text": text}]):
        turns = [
            {"role": role, "content": content(text)} for role, text in (("user", _QUESTION), ("assistant", _ANSWER))
        ]
        try:
            rendered = str(tokenizer.apply_chat_template(turns, tokenize=False))
        except Exception:  # a template is code of others and raises what it likes; its header is then not known, and
            # a sequence that ends in one is refused with a message that asks for it (headers=)
            continue
        between = re.search(f"{_QUESTION}(.*?){_ANSWER}", rendered, re.DOTALL)
        if between is not None:
            pieces = re.split("|".join(map(re.escape, special)), between[1]) if special else [between[1]]
            return {pieces[-1].strip().encode()} - {b""}
    return set()
