"""LLaVA's JSON arrays and JSON Lines: the same records, found in two ways."""

from __future__ import annotations

import builtins
import io
import json
import pickle
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sources import indexed
from pipelines.sources.columns import Columns
from pipelines.sources.images import ImageOptions
from pipelines.sources.jsonl import JsonLines
from pipelines.sources.llava_json import JsonArray, find_records
from pipelines.sources.records import infer_schema
from scorer.errors import FailureCode
from scorer.types import IMAGE
from tests.pipelines.sources.helpers import captions, failure, read_all, read_units, sample, source, texts
from tests.pipelines.sources.json_files import KINDS, RECORDS, write_json


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 3, 10, 99])
def test_units_read_what_the_whole_shard_holds(tmp_path: Path, kind: str, rows: int) -> None:
    path = write_json(tmp_path, kind)
    src = source(tmp_path)
    (shard,) = src.shards()
    assert (shard.name, shard.path, shard.rows) == ("train.parquet", str(path), 10)
    read = read_units(src, rows)
    assert read == read_all(src)
    assert texts(read) == [record["caption"] for record in RECORDS]
    assert [row.sample_id for row in read] == [record["id"] for record in RECORDS]
    assert [sample(row).images for row in read] == [(str(tmp_path / record["image"]),) for record in RECORDS]


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_reads_a_range_in_any_order(tmp_path: Path, kind: str) -> None:
    write_json(tmp_path, kind)
    src = source(tmp_path)
    (shard,) = src.shards()
    worker = pickle.loads(pickle.dumps(src))
    for start, stop in ((7, 9), (0, 2), (4, 5), (4, 10)):
        read = worker.read(shard.part(start, stop), start, stop)
        assert [row.sample_id for row in read] == [f"r{i}" for i in range(start, stop)]


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_a_unit_reads_its_own_bytes_only(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path, kind)
    src = source(tmp_path)
    (shard,) = src.shards()
    part = shard.part(6, 8)
    seen: list[tuple[int, int]] = []

    class Spy(io.FileIO):
        def read(self, size: int | None = -1) -> Any:
            seen.append((self.tell(), size or 0))
            return super().read(size)

    monkeypatch.setattr(builtins, "open", lambda path, mode: Spy(path))
    src.read(part, 6, 8)
    assert part.index.extent(6, 8).runs == tuple((at, at + size) for at, size in seen)
    assert sum(size for _, size in seen) < shard.size / 4
    seen.clear()
    assert [row.sample_id for row in src.read(part, 7, 8)] == ["r7"]
    assert sum(size for _, size in seen) < shard.size / 8, "a row of a unit, and not all of it"


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst"])
def test_ascending_units_decompress_a_file_once(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path, kind)
    src = source(tmp_path)
    shards = src.shards()
    opened: list[str] = []
    original = indexed._open
    monkeypatch.setattr(indexed, "_open", lambda fs, path: opened.append(path) or original(fs, path))
    for start in range(10):
        src.read(shards[0].part(start, start + 1), start, start + 1)
    assert len(opened) == 1


def test_images_lie_below_the_image_root(tmp_path: Path) -> None:
    bad = ["../x.jpg", "a/../../x.jpg", "/etc/hostname", "file:///etc/hostname", "s3://b/x", "..\\x.jpg", "\\x.jpg"]
    records = [{"image": path, "caption": "a"} for path in ["coco/1.jpg", *bad]]
    write_json(tmp_path / "data", "json", records)
    rows = read_all(source(tmp_path / "data", images=ImageOptions(root=str(tmp_path / "images"))))
    assert sample(rows[0]).images == (str(tmp_path / "images" / "coco/1.jpg"),)
    assert {failure(row).code for row in rows[1:]} == {FailureCode.IMAGE_MISSING}
    assert all("is not below the image root" in failure(row).message for row in rows[1:])


def test_images_in_a_bucket_beside_a_local_file(tmp_path: Path) -> None:
    records = [{"image": f"{name}.jpg", "caption": "a"} for name in ("1", "absent", "../secret")]
    write_json(tmp_path, "json", records)
    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"/bucket-{tmp_path.name}/images/1.jpg", b"picture")
    fs.pipe_file(f"/bucket-{tmp_path.name}/secret.jpg", b"secret")
    rows = read_all(source(tmp_path, images=ImageOptions(root=f"memory://bucket-{tmp_path.name}/images")))
    assert sample(rows[0]).images == (b"picture",)
    assert [failure(row).code for row in rows[1:]] == [FailureCode.IMAGE_MISSING] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_remote_file_reads_like_a_local_one(tmp_path: Path, kind: str) -> None:
    path = write_json(tmp_path, kind, [{"image": "1.jpg", "caption": f"kite {i}"} for i in range(7)])
    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"/{tmp_path.name}/data/train.{kind}", path.read_bytes())
    fs.pipe_file(f"/{tmp_path.name}/data/1.jpg", b"picture")
    rows = read_units(source(f"memory://{tmp_path.name}/data"), 2)
    assert texts(rows) == [f"kite {i}" for i in range(7)]
    assert {sample(row).images for row in rows} == {(b"picture",)}


def test_llava_conversations_and_rows_of_several_pictures(tmp_path: Path) -> None:
    def talk(question: str) -> list[dict[str, str]]:
        return [{"from": "human", "value": question}, {"from": "gpt", "value": "A kite."}]

    records = [
        {"id": 1, "image": "a.jpg", "conversations": talk("<image>\nWhat?")},
        {"id": "two", "image": ["a.jpg", "b.jpg"], "conversations": talk("<image>\n<image>\nWhich?")},
        {"id": 3, "conversations": talk("Text only.")},
    ]
    write_json(tmp_path, "json", records)
    src = source(tmp_path)
    rows = read_all(src)
    assert src.columns == Columns(image="image", messages="conversations", id="id")
    assert [row.sample_id for row in rows] == ["1", "two", "3"]
    assert sample(rows[0]).turns[0].content == (IMAGE, "What?")
    assert sample(rows[1]).images == (str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg"))
    assert sample(rows[2]).images == ()
    assert sample(rows[2]).turns[0].content == ("Text only.",)
    assert sample(rows[2]).text_only


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_lists_and_numbered_columns_of_texts(tmp_path: Path, kind: str) -> None:
    write_json(tmp_path / "list", kind, [{"image": "1", "captions": ["a", None, "b"]}, {"image": "1", "captions": "c"}])
    first, second = read_all(source(tmp_path / "list"))
    assert captions(first).texts == ("a", "", "b")
    assert texts([second]) == ["c"]
    write_json(tmp_path / "numbered", kind, [{"image": "1", "caption_1": "b", "caption_0": "a", "caption_10": "c"}])
    (row,) = read_all(source(tmp_path / "numbered"))
    assert captions(row).texts == ("a", "b", "c")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(
    st.lists(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=3), max_size=4),
    st.integers(1, 40),
    st.booleans(),
    st.data(),
)
def test_any_array_and_any_window(records: list[Any], chunk: int, ascii_only: bool, data: st.DataObject) -> None:
    indent = data.draw(st.sampled_from([None, 1]))
    raw = json.dumps(records, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    found = [json.loads(raw[start:end]) for start, end in find_records(io.BytesIO(raw), chunk)]
    assert found == records
    both: list[tuple[Any, bytes]] = [(JsonArray(), raw), (JsonLines(), lines_of(records, ascii_only))]
    for format, content in both:
        index = format.index(io.BytesIO(content))
        assert len(index) == len(records)
        start = data.draw(st.integers(0, len(records)))
        stop = data.draw(st.integers(start, len(records)))
        extent = index.extent(start, stop)
        read = format.records([content[first:last] for first, last in extent.runs], extent, None)
        assert [r for r in read if isinstance(r, dict)] == [r for r in records[start:stop] if _is_text(r)]
        assert len(read) == stop - start


def lines_of(records: list[Any], ascii_only: bool) -> bytes:
    return b"\n".join(
        json.dumps(record, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") for record in records
    )


def _is_text(record: Any) -> bool:
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def test_keys_whose_values_differ_in_type() -> None:
    schema = infer_schema([{"a": 1, "b": "x", "c": None}, {"a": "y", "b": ["x"]}, {"a": None, "d": 1.5, "e": True}])
    assert schema == pa.schema(
        [("a", pa.string()), ("b", pa.list_(pa.string())), ("c", pa.null()), ("d", pa.float64()), ("e", pa.null())]
    )
