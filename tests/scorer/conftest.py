"""Session-scoped tiny reference models."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from scorer.encoding.encoder import Encoder
from tests.scorer import tiny

if TYPE_CHECKING:
    from tests.scorer.templates import Load

pytest.register_assert_rewrite("tests.scorer.templates")


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


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Encoders of templates, made once."""

    @cache
    def loaded(template: str, tokenizer: Callable[[], Any]) -> Encoder:
        path = tmp_path_factory.mktemp("template")
        tiny.save_llava_files(path, tokenizer(), template)
        return Encoder.load(path)

    return lambda case: loaded(case.template, case.tokenizer)
