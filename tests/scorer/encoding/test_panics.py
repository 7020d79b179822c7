"""A panic of the tokenizer, whose exception is no Exception, costs a row and not its worker."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.run.encoding import encode_rows
from scorer import Sample
from scorer.encoding.encoder import Encoder
from scorer.errors import FailureCode
from scorer.mini import MODEL_PATH
from scorer.results import Failure
from scorer.types import EncodedSample
from tests.scorer.pictures import picture

Panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
"""As pyo3 makes it."""


def test_a_text_that_makes_the_tokenizer_panic_fails_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder.load(MODEL_PATH)
    sound = encoder.encode

    def encode(sample: Sample) -> EncodedSample:
        if sample.sample_id == "panic":
            raise Panic("index out of bounds")
        return sound(sample)

    monkeypatch.setattr(encoder, "encode", encode)
    rows = [Sample.caption(name, picture(64, 64), "A red kite.") for name in ("a", "panic", "b")]
    first, bad, last = encode_rows(rows, encoder)
    assert isinstance(first, EncodedSample)
    assert isinstance(last, EncodedSample)
    assert isinstance(bad, Failure)
    assert bad.code is FailureCode.SCORING_FAILED
    assert "the tokenizer panicked: index out of bounds" in bad.message


def test_other_ends_of_a_process_are_not_taken_for_a_panic(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder.load(MODEL_PATH)

    def interrupted(sample: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(encoder, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        encode_rows([Sample.caption("a", picture(64, 64), "A red kite.")], encoder)
