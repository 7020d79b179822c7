"""Whose an exception is: a row's own values cost that row, storage and options end the run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipelines.run.encoding import encode_rows
from pipelines.sources import Captions, jsonl, llava_json
from pipelines.sources import rows as rows_module
from pipelines.sources.columns import Columns
from pipelines.sources.images import ImageResolver
from pipelines.sources.rows import own_error
from scorer.config import ScorerConfig
from scorer.encoding.encoder import Encoder
from scorer.errors import ConfigError, FailureCode, RowError, RunError
from scorer.fetching.fetcher import Fetcher
from scorer.mini import MODEL_PATH
from scorer.results import Failure
from scorer.types import Sample
from tests.pipelines.sources.fuzzing import good_image
from tests.pipelines.sources.helpers import failure, read_all, read_units, source, texts

GOOD = {"id": "g", "image": "p.png", "caption": "A red square."}
GOOD_TALK = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "A red square."}]


def write(folder: Path, lines: list[bytes], name: str = "a.jsonl") -> Path:
    (folder / "p.png").write_bytes(good_image())
    joined = b"[" + b",\n".join(lines) + b"]" if name.endswith(".json") else b"\n".join(lines) + b"\n"
    (folder / name).write_bytes(joined)
    return folder


@pytest.mark.parametrize("url", ["http://[IMG]/x.jpg", "http://[bad/x.jpg", "HTTPS://[::1", " http://[x]/"])
def test_a_url_that_no_parser_takes_costs_its_row(tmp_path: Path, url: str) -> None:
    rows = read_all(
        source(write(tmp_path, [json.dumps(r).encode() for r in (GOOD, {**GOOD, "id": "u", "image": url})]))
    )
    assert texts(rows[:1]) == ["A red square."]
    assert failure(rows[1]).code is FailureCode.IMAGE_URL_REFUSED
    assert failure(rows[1]).sample_id == "u"


@pytest.mark.parametrize("role", [["user"], {"a": 1}, 7, None, True])
@pytest.mark.parametrize("key", ["role", "from"])
def test_a_role_of_another_type_costs_its_row(tmp_path: Path, role: Any, key: str) -> None:
    content = "content" if key == "role" else "value"
    bad = [{key: role, content: "x"}, {key: "assistant", content: "A cat."}]
    records = [{"image": "p.png", "messages": talk} for talk in (GOOD_TALK, bad, GOOD_TALK)]
    rows = read_all(source(write(tmp_path, [json.dumps(record).encode() for record in records])))
    assert [isinstance(row, Failure) for row in rows] == [False, True, False]
    assert failure(rows[1]).code is FailureCode.CONVERSATION_INVALID


DEEP = b'{"image": "p.png", "caption": ' + b"[" * 100_000 + b'"]\\"}"' + b"]" * 100_000 + b"}"
DIGITS = b'{"image": "p.png", "caption": ' + b"1" * 5000 + b"}"


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("bad", [DEEP, DIGITS], ids=["deep", "digits"])
def test_what_the_json_parser_refuses_costs_its_row(tmp_path: Path, name: str, bad: bytes) -> None:
    good = json.dumps(GOOD).encode()
    rows = read_units(source(write(tmp_path, [good, bad, good], name)), 2)
    assert texts([rows[0], rows[2]]) == ["A red square."] * 2
    assert failure(rows[1]).code is FailureCode.ROW_UNREADABLE


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_record_that_is_too_long_costs_its_row(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (jsonl, llava_json):
        monkeypatch.setattr(module, "MAX_RECORD", 1000)
    monkeypatch.setattr(llava_json, "CHUNK", 64)
    good = json.dumps(GOOD).encode()
    long = json.dumps({**GOOD, "caption": 'a "} \\' * 900}).encode()
    rows = read_units(source(write(tmp_path, [good, long, good, long], name)), 3)
    assert texts([rows[0], rows[2]]) == ["A red square."] * 2
    for row in (rows[1], rows[3]):
        assert failure(row).code is FailureCode.ROW_UNREADABLE
        assert "1,000" in failure(row).message


@pytest.mark.parametrize("prompt", [0, [], {}, ["x"], True])
def test_a_prompt_that_is_no_string_is_not_taken_for_none(tmp_path: Path, prompt: Any) -> None:
    records = [{**GOOD, "prompt": "What?"}, {**GOOD, "prompt": prompt}]
    folder = write(tmp_path, [json.dumps(r).encode() for r in (*[records[0]] * 32, records[1])])
    rows = read_all(source(folder, columns=Columns(prompt="prompt")))
    # A list is taken for messages before the text, and these are none.
    code = FailureCode.CONVERSATION_INVALID if isinstance(prompt, list) else FailureCode.TEXT_INVALID
    assert failure(rows[-1]).code is code
    assert ("messages" if isinstance(prompt, list) else "prompt") in failure(rows[-1]).message


def test_the_rule(caplog: pytest.LogCaptureFixture) -> None:
    row = RowError(FailureCode.TEXT_MISSING, "none")
    assert own_error(row, "it") is row
    for ours in (OSError("disk"), PermissionError("credentials"), ConfigError("option"), RunError("run")):
        with pytest.raises(type(ours)):
            own_error(ours, "it")
    with caplog.at_level(logging.DEBUG, logger=rows_module.log.name):
        found = own_error(TypeError("unhashable type: 'list'"), "reading the row")
    assert found.code is FailureCode.ROW_UNREADABLE
    assert found.message == "reading the row raised TypeError: unhashable type: 'list'"
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize(("error", "ends"), [(OSError("disk"), True), (ConfigError("x"), True), (KeyError("x"), False)])
def test_encoding_goes_by_the_rule(error: Exception, ends: bool) -> None:
    class Raises:
        def try_encode(self, sample: Sample) -> Any:
            raise error

    rows = [Sample.caption("a", b"", "A"), Failure("b", FailureCode.TEXT_MISSING, "none")]
    if ends:
        with pytest.raises(type(error)):
            encode_rows(rows, Raises())
        return
    encoded = encode_rows(rows, Raises())
    assert [getattr(row, "code", None) for row in encoded] == [FailureCode.SCORING_FAILED, FailureCode.TEXT_MISSING]


class _Store(MemoryFileSystem):
    """A remote file system whose client raises."""

    raises: Exception

    def info(self, path: str, **options: Any) -> Any:
        raise self.raises


class NoCredentialsError(Exception):
    """As botocore's: not an OSError."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError("403"), OSError),
        (NoCredentialsError("none"), OSError),
        (ValueError("invalid name"), RowError),
        (FileNotFoundError("gone"), RowError),
        (NotADirectoryError("file"), RowError),
    ],
)
def test_a_store_s_own_errors_are_the_run_s(error: Exception, expected: type[Exception]) -> None:
    fs = _Store()
    fs.raises = error
    resolver = ImageResolver(fs, "/bucket", False, 2**20, Fetcher())
    with pytest.raises(expected):
        resolver.images("x.png")


def test_a_name_that_no_store_takes_is_the_row_s() -> None:
    resolver = ImageResolver(fsspec.filesystem("memory"), "/bucket", False, 2**20, Fetcher())
    with pytest.raises(RowError, match="1024 bytes"):
        resolver.images("x" * 2000)


def test_a_message_that_quotes_half_a_surrogate_pair_can_be_stored() -> None:
    assert Failure("a", FailureCode.TEXT_INVALID, "it is \ud800!").message == "it is \\ud800!"


def test_a_row_whose_texts_are_too_long_together_fails(tmp_path: Path) -> None:
    """The prompt and every caption count, in bytes, before anything is tokenized."""
    two = {"image": "p.png", "captions": ["é" * 20, "e" * 20]}  # with the prompt, 9 + 40 + 20 bytes
    folder = write(tmp_path, [json.dumps(two).encode()])
    assert isinstance(read_all(source(folder, max_text_bytes=69))[0], Captions)
    refused = failure(read_all(source(folder, max_text_bytes=68))[0])
    assert refused.code is FailureCode.TEXT_TOO_LONG
    assert "69 bytes, more than max_text_bytes=68" in refused.message


def test_the_encoder_refuses_long_texts_before_it_tokenizes(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = Encoder.load(MODEL_PATH, ScorerConfig(max_text_bytes=20))
    monkeypatch.setattr(limited, "_chat", None)
    result = limited.try_encode(Sample.caption("a", good_image(), "A red circle.", "What is it?"))
    assert isinstance(result, Failure)
    assert result.code is FailureCode.TEXT_TOO_LONG
