"""Session-scoped tiny reference models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.scorer import tiny


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny models lose more to thread hand-over than they gain."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def chatml_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte-level BPE, ChatML template."""
    return tiny.make_llava(tmp_path_factory.mktemp("chatml"), tiny.byte_level_tokenizer(), tiny.CHATML)


@pytest.fixture(scope="session")
def vicuna_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SentencePiece-like BPE, LLaVA-1.5's kind of template: BOS by the tokenizer, a space before the caption."""
    return tiny.make_llava(tmp_path_factory.mktemp("vicuna"), tiny.sentencepiece_tokenizer(), tiny.VICUNA)
