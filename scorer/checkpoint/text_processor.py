"""Replace the processor for a reference model that takes no images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scorer.errors import ModelError, explain


@dataclass(frozen=True)
class TextProcessor:
    """A tokenizer with the part of the processor interface that encoding needs."""

    tokenizer: Any
    chat_template: str
    image_processor: None = None
    image_token: None = None

    @classmethod
    def load(cls, path: Path, template_without_chat: str | None) -> TextProcessor:
        """Load the tokenizer and chat template of a model directory. Raises ModelError if either is missing."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        except Exception as error:  # tokenizers raises no narrower class
            raise ModelError(
                f"the tokenizer of the model in {path} cannot be loaded: {explain(error)}; check its tokenizer files"
            ) from error
        template = tokenizer.chat_template or template_without_chat
        if not isinstance(template, str):
            raise ModelError(f"the model in {path} has several chat templates or none; exactly one is needed")
        return cls(tokenizer, template)

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> str:
        """Render a conversation whose contents are lists of text parts; a language model's template expects strings."""
        flat = [{**message, "content": "".join(part["text"] for part in message["content"])} for message in messages]
        return str(self.tokenizer.apply_chat_template(flat, chat_template=self.chat_template, **options))
