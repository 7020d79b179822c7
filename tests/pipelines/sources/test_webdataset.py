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


def test_the_last_part_of_a_compound_suffix_says_what_a_member_is(tmp_path: Path) -> None:
    members = [
        member
        for key in ("s0", "s1")
        for member in ((f"{key}.input.jpg", b"jpg"), (f"{key}.outputs.txt", f"kite {key}".encode()))
    ]
    write_tar(tmp_path, members)
    found = source(tmp_path, columns=Columns(text="outputs.txt"))
    assert texts(read_all(found)) == ["kite s0", "kite s1"]
    assert found.columns == Columns(image="input.jpg", text="outputs.txt", id="__key__")


def test_dots_in_a_name_are_part_of_the_suffix_as_in_the_library(tmp_path: Path) -> None:
    members = [("22.05.png", b"a"), ("22.05.txt", b"A kite."), ("22.06.png", b"b"), ("22.06.txt", b"Two boats.")]
    write_tar(tmp_path, [*members, ("x/23.05.png", b"c"), ("x/23.05.txt", b"One sea.")])
    with pytest.raises(ConfigError, match=r"05\.txt"):
        source(tmp_path).shards()
    rows = read_all(source(tmp_path, columns=Columns(text="05.txt", image="05.png")))
    assert [row.sample_id for row in rows] == ["22", "x/23"]
    assert texts(rows) == ["A kite.", "One sea."]
    assert [sample(row).images for row in rows] == [(b"a",), (b"c",)]


@pytest.mark.parametrize("suffix", ["cls", "cap", "05", "a.b", "conv.bin", "html"])
def test_a_member_that_is_named_as_text_is_text(tmp_path: Path, suffix: str) -> None:
    kite = "№ 7".encode()
    write_tar(tmp_path, [("1.jpg", b"jpg"), (f"1.{suffix}", kite), ("2.jpg", b"jpg"), (f"2.{suffix}", b"\xff")])
    rows = read_all(source(tmp_path, columns=Columns(text=suffix)))
    assert texts(rows[:1]) == ["№ 7"]
    assert failure(rows[1]).code is FailureCode.TEXT_INVALID
    several = read_all(source(tmp_path, columns=Columns(text=f"{suffix}, {suffix}")))
    assert captions(several[0]).texts == ("№ 7", "№ 7")


def test_a_named_member_is_an_id_or_a_prompt(tmp_path: Path) -> None:
    write_tar(tmp_path, [("1.jpg", b"jpg"), ("1.txt", b"A kite."), ("1.cls", b"17"), ("1.ask", b"What is it?")])
    (row,) = read_all(source(tmp_path, columns=Columns(id="cls", prompt="ask")))
    assert row.sample_id == "17"
    assert "What is it?" in str(sample(row).turns[0])


def test_compound_json_members_hold_columns_and_values(tmp_path: Path) -> None:
    members = [("1.jpg", b"jpg"), ("1.caption.json", b'{"caption": "A kite."}'), ("1.say.json", b'"Two boats."')]
    write_tar(tmp_path, members)
    assert texts(read_all(source(tmp_path, columns=Columns(text="caption")))) == ["A kite."]
    assert texts(read_all(source(tmp_path, columns=Columns(text="say.json")))) == ["Two boats."]
    with pytest.raises(ConfigError, match=r"column 'caption\.json' is struct"):
        source(tmp_path, columns=Columns(text="caption.json")).shards()


def test_one_key_in_two_json_members_is_ambiguous_unless_one_is_plain(tmp_path: Path) -> None:
    two = [("1.jpg", b"jpg"), ("1.a.json", b'{"caption": "A kite."}'), ("1.b.json", b'{"caption": "Two boats."}')]
    write_tar(tmp_path, [("0.jpg", b"jpg"), ("0.json", b'{"caption": "One sea."}'), *two], "x.tar")
    rows = read_all(source(tmp_path, columns=Columns(text="caption")))
    assert texts(rows[:1]) == ["One sea."]
    assert "several JSON members of the sample '1' have the key 'caption'; keep" in failure(rows[1]).message
    write_tar(tmp_path, [*two, ("1.json", b'{"caption": "One sea."}')], "x.tar")
    assert texts(read_all(source(tmp_path, columns=Columns(text="caption")))) == ["One sea."]


def test_what_belongs_to_no_sample_is_passed_over_and_counted(tmp_path: Path) -> None:
    double = [member for key in ("0", "1") for member in ((f"d/._{key}.jpg", b"\0\5"), (f"d/._{key}.txt", b"\0\5"))]
    others = [
        ("._x.jpg", b""),
        ("d/.DS_Store", b""),
        ("__MACOSX/d/0.jpg", b""),
        ("README", b""),
        ("__meta__", b""),
    ]
    write_tar(tmp_path, [*double, *others, *sample_members(["d/0", "d/1"])])
    found = source(tmp_path)
    assert texts(read_all(found)) == ["kite № d/0", "kite № d/1"]
    account = found.account()
    assert (account["seen"], account["read"]) == (1, 1)
    assert {reason: one["count"] for reason, one in account["members_passed_over"].items()} == {
        "AppleDouble": 6,
        "hidden": 1,
        "without a key and a suffix": 2,
    }
