"""JSON arrays and lines that are damaged, cut off or too large to be records."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path

import pytest

from pipelines.sources import jsonl, llava_json
from pipelines.sources.columns import Columns
from pipelines.sources.llava_json import find_records
from scorer.errors import ConfigError, FailureCode, RunError
from tests.pipelines.sources.helpers import failure, read_all, read_units, source, texts
from tests.pipelines.sources.json_files import RECORDS, lines, write_json


def test_a_line_that_is_no_record_fails_alone(tmp_path: Path) -> None:
    good = json.dumps({"image": "1", "caption": "a"}).encode()
    half = b'{"image": "1", "caption": "\\ud800"}'
    deep = b"[" * 100_000
    bad = [b'{"image": "1", "cap', b"[1]", b"7", b'{"image": "1", "caption": "\xff"}', deep, half]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join([b"\xef\xbb\xbf" + good, b"", *bad, b"  \r", good, good]))
    rows = read_units(source(tmp_path), 2)
    assert texts([rows[0], *rows[-2:]]) == ["a"] * 3
    codes = [failure(row).code for row in rows[1:-2]]
    assert codes == [*[FailureCode.ROW_UNREADABLE] * 5, FailureCode.TEXT_INVALID]
    assert rows[3].sample_id == "x.parquet#3"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a": 1}, {"a": 2}', "the array is not closed"),
        (b'[{"a": 1}, {"a": ', r"not valid JSON .* \(at byte 11\)"),
        (b'[{"a": 1} {"a": 2}]', "there is no comma between two records .at byte 10"),
        (b'[{"a": 1}, ]', "not valid JSON"),
        (b'[{"a": 1}] x', "the array is followed by something else"),
        (b"nonsense", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'[7, "x"]', "none of its first 2 rows can be read as json"),
        (b'{"images": [], "annotations": []}', "no text column was found"),
    ],
)
def test_a_damaged_array_is_refused_by_place(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        source(tmp_path).shards()
    assert str(tmp_path / "x.json") in str(caught.value)


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_refused_by_its_name(tmp_path: Path, name: str, encoding: str) -> None:
    records = [{"image": "0.png", "caption": "a kite"}, {"image": "1.png", "caption": "two boats"}]
    lines = "\n".join(map(json.dumps, records)) if name == "x.jsonl" else json.dumps(records)
    (tmp_path / name).write_bytes(lines.encode(encoding))
    with pytest.raises(ConfigError, match=rf"{name} cannot be read as .*it is UTF-16 or UTF-32; .* convert it"):
        source(tmp_path).shards()
    (tmp_path / name).write_bytes(lines.encode("utf-8-sig"))
    assert len(read_all(source(tmp_path))) == 2


@pytest.mark.parametrize("text", ['[\n{"caption": "a"},\n{"caption": "b"}\n]', '[{"caption": "a"},\n{"caption": "b"}]'])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_an_array_with_a_record_a_line_is_not_json_lines(tmp_path: Path, text: str, mark: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(mark + text.encode())
    with pytest.raises(ConfigError, match=r"it is one JSON array, not one record per line; .* --format json"):
        source(tmp_path).shards()
    rows = read_all(source(tmp_path / "x.jsonl", format="json", columns=Columns(image="none")))
    assert texts(rows) == ["a", "b"]


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst"])
def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path: Path, kind: str) -> None:
    path = write_json(tmp_path, kind)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ConfigError, match=rf"train\.{kind} cannot be read as jsonl"):
        source(tmp_path).shards()


def test_records_without_brackets_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(lines(RECORDS))
    (tmp_path / "b.json").write_bytes(b" [ ] \n")
    (tmp_path / "c.json").write_bytes(b"")
    src = source(tmp_path)
    assert [shard.rows for shard in src.shards()] == [10, 0, 0]
    assert texts(read_all(src)) == [record["caption"] for record in RECORDS]


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = write_json(tmp_path, "jsonl")
    src = source(tmp_path)
    (shard,) = src.shards()
    path.write_bytes(b"{}\n" * 400)
    with pytest.raises(RunError, match="it was changed during the run"):
        src.read(shard.part(2, 5), 2, 5)


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_RECORD", 1000)
    (tmp_path / "x.jsonl").write_bytes(b"{}\n" + b"0" * 2000)
    with pytest.raises(ConfigError, match="the line at byte 3 has more than"):
        source(tmp_path).shards()
    monkeypatch.setattr(llava_json, "MAX_RECORD", 1000)
    with pytest.raises(ValueError, match="not valid JSON"):
        list(find_records(io.BytesIO(b'["' + b"0" * 100_000), chunk=64))


def test_a_large_array_is_never_held(tmp_path: Path) -> None:
    record = json.dumps({"image": "1.jpg", "caption": "x" * 2000}).encode()
    path = tmp_path / "x.json"
    path.write_bytes(b"[" + b",\n".join([record] * 10_000) + b"]")
    with path.open("rb") as file:
        tracemalloc.start()
        found = sum(1 for _ in find_records(file, chunk=2**16))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert found == 10_000
    assert peak < path.stat().st_size / 20
