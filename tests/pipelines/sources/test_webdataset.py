from __future__ import annotations

import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sources.columns import Columns
from pipelines.sources.webdataset import split_name
from scorer.errors import ConfigError, FailureCode
from tests.pipelines.sources.helpers import (
    KEYS,
    captions,
    failure,
    read_all,
    read_units,
    sample,
    sample_members,
    source,
    tar_bytes,
    tar_records,
    texts,
    write_tar,
)


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("rows", [1, 3, 10])
def test_units_read_what_the_whole_shard_holds(tmp_path: Path, format: int, rows: int) -> None:
    path = write_tar(tmp_path, sample_members(KEYS), format=format)
    src = source(tmp_path)
    (shard,) = src.shards()
    assert (shard.name, shard.path, shard.rows) == ("train-000.parquet", str(path), 10)
    read = read_units(src, rows)
    assert read == read_all(src)
    assert [row.sample_id for row in read] == KEYS
    assert texts(read) == [f"kite № {key}" for key in KEYS]
    assert [sample(row).images for row in read] == [(f"picture {key}".encode(),) for key in KEYS]
    assert src.columns == Columns(image="image", text="txt", id="__key__")


def test_the_library_reads_the_same_samples(tmp_path: Path) -> None:
    """A shard that the webdataset library wrote, and what it reads itself."""
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path / "x.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for i in range(5):
            json_member = {"width": i, "caption": "not this one", "key": "nor this"}
            writer.write({"__key__": f"a/b.c{i}/{i:03}", "txt": f"kite {i}", "jpg": b"jpg", "json": json_member})
    library = webdataset.tariterators
    with path.open("rb") as stream:
        members = [{**member, "__url__": ""} for member in library.tar_file_iterator(stream)]
    theirs = list(library.group_by_keys(members))
    ours = read_all(source(path))
    assert [row.sample_id for row in ours] == [one["__key__"] for one in theirs]
    assert texts(ours) == [one["txt"].decode() for one in theirs]
    assert [sample(row).images[0] for row in ours] == [one["jpg"] for one in theirs]


@given(st.text(alphabet="ab./_A", min_size=1, max_size=12))
def test_names_are_taken_apart_as_the_library_does(name: str) -> None:
    library = pytest.importorskip("webdataset.tariterators")
    if name.startswith("__") and name.endswith("__") and "/" not in name:
        assert split_name(name) is None  # the library leaves these out as it reads
        return
    key, suffix = library.base_plus_ext(name)
    assert split_name(name) == (None if key is None else (key, suffix.lower()))


def test_members_that_are_not_neighbours_are_one_sample(tmp_path: Path) -> None:
    members = sample_members(KEYS)
    apart = [*members[::2], *members[1::2]]
    write_tar(tmp_path, apart)
    read = read_units(source(tmp_path), 3)
    assert texts(read) == [f"kite № {key}" for key in KEYS]
    assert [sample(row).images[0] for row in read] == [f"picture {key}".encode() for key in KEYS]


@settings(max_examples=40)
@given(st.permutations(sample_members(["a", "b", "c", "d"])), st.integers(1, 4))
def test_any_order_of_members(members: list[tuple[str, bytes]], rows: int) -> None:
    data = tar_bytes(members)
    order = list(dict.fromkeys(name[0] for name, _ in members))
    assert [record["__key__"] for record in tar_records(rows, data) if isinstance(record, dict)] == order
    for record in tar_records(rows, data):
        assert isinstance(record, dict)
        assert (record["image"], record["txt"]) == (
            f"picture {record['__key__']}".encode(),
            f"kite № {record['__key__']}",
        )


def test_json_members_hold_columns(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A kite."}]
    write_tar(tmp_path, [("1.json", json.dumps({"id": "x", "conversations": talk}).encode()), ("1.PNG", b"picture")])
    (row,) = read_all(source(tmp_path))
    assert sample(row).scored_texts == ("A kite.",)
    assert (sample(row).images, row.sample_id) == ((b"picture",), "1")
    (row,) = read_all(source(tmp_path, columns=Columns(id="id")))
    assert row.sample_id == "x"


def test_a_text_member_goes_before_the_json_beside_it(tmp_path: Path) -> None:
    metadata = json.dumps({"caption": "json", "captions": ["a", "b"], "url": "http://x", "key": "0"}).encode()
    write_tar(tmp_path, [("1.jpg", b"p"), ("1.txt", b"txt"), ("1.json", metadata)])
    assert texts(read_all(source(tmp_path))) == ["txt"]
    assert texts(read_all(source(tmp_path, columns=Columns(text="caption")))) == ["json"]
    (row,) = read_all(source(tmp_path, columns=Columns(text="captions")))
    assert captions(row).texts == ("a", "b")


def test_suffixes_may_differ_from_sample_to_sample(tmp_path: Path) -> None:
    members = [("1.jpg", b"1"), ("1.txt", b"a"), ("2.webp", b"2"), ("2.txt", b"b"), ("3.txt", b"c"), ("4.jpg", b"4")]
    write_tar(tmp_path, members)
    one, two, three, four = read_all(source(tmp_path))
    assert [sample(row).images for row in (one, two, three)] == [(b"1",), (b"2",), ()]
    assert failure(four).code is FailureCode.TEXT_MISSING


def test_several_images_of_a_sample_are_named(tmp_path: Path) -> None:
    write_tar(tmp_path, [("1.jpg", b"1"), ("1.png", b"2"), ("1.0.jpg", b"3"), ("1.txt", b"a")])
    with pytest.raises(ConfigError, match=r"several columns may hold the image .*--image-column"):
        source(tmp_path).shards()
    (row,) = read_all(source(tmp_path, columns=Columns(image="0.jpg,png,jpg")))
    assert sample(row).images == (b"3", b"2", b"1")
    columns = Columns(image="jpg", contrast_image="0.jpg")
    (row,) = read_all(source(tmp_path, columns=columns, contrast_images=True))
    assert sample(row).contrast_images == (b"3",)
    write_tar(tmp_path, [("1.jpg", b"1"), ("1.txt", b"a"), ("2.jpg", b"1"), ("2.png", b"2"), ("2.txt", b"a")])
    _, odd = read_all(source(tmp_path))
    assert "several images (jpg, png)" in failure(odd).message


def test_remote_shards_are_read_by_ranges(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"/{tmp_path.name}/a/1.tar", tar_bytes(sample_members(KEYS)))
    src = source(f"memory://{tmp_path.name}")
    (shard,) = src.shards()
    assert shard.name == "a/1.parquet"
    worker = pickle.loads(pickle.dumps(src))
    asked: list[tuple[int, int]] = []
    original = type(fs).cat_file

    def spy(self: Any, path: str, start: int | None = None, end: int | None = None, **options: Any) -> Any:
        asked.append((start or 0, end or 0))
        return original(self, path, start, end, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(fs), "cat_file", spy)
        rows = worker.read(shard.part(4, 6), 4, 6)
    assert [row.sample_id for row in rows] == KEYS[4:6]
    assert asked == [(4 * 2048, 6 * 2048)]
