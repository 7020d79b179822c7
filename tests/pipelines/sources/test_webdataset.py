from __future__ import annotations

import io
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
from pipelines.sources.rows import Record
from pipelines.sources.webdataset import WebDataset, split_name
from scorer.errors import ConfigError, FailureCode, RowError
from tests.pipelines.sources.helpers import (
    Members,
    captions,
    failure,
    read_all,
    read_units,
    sample,
    sample_members,
    source,
    tar_bytes,
    texts,
)


def write(folder: Path, members: Members, name: str = "train-000.tar", **options: Any) -> Path:
    path = folder / name
    path.write_bytes(tar_bytes(members, **options))
    return path


KEYS = [f"{i:03}" for i in range(10)]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("rows", [1, 3, 10])
def test_units_read_what_the_whole_shard_holds(tmp_path: Path, format: int, rows: int) -> None:
    path = write(tmp_path, sample_members(KEYS), format=format)
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
    write(tmp_path, apart)
    read = read_units(source(tmp_path), 3)
    assert texts(read) == [f"kite № {key}" for key in KEYS]
    assert [sample(row).images[0] for row in read] == [f"picture {key}".encode() for key in KEYS]


@settings(max_examples=40)
@given(st.permutations(sample_members(["a", "b", "c", "d"])), st.integers(1, 4))
def test_any_order_of_members(members: list[tuple[str, bytes]], rows: int) -> None:
    data = tar_bytes(members)
    order = list(dict.fromkeys(name[0] for name, _ in members))
    assert [record["__key__"] for record in records_by(rows, data) if isinstance(record, dict)] == order
    for record in records_by(rows, data):
        assert isinstance(record, dict)
        assert (record["image"], record["txt"]) == (
            f"picture {record['__key__']}".encode(),
            f"kite № {record['__key__']}",
        )


def records_by(rows: int, data: bytes) -> list[Record]:
    """The records of a tar, by units of ``rows``."""
    format = WebDataset()
    index = format.index(io.BytesIO(data))
    found: list[Record] = []
    for start in range(0, len(index), rows):
        extent = index.extent(start, min(start + rows, len(index)))
        found += format.records([data[first:last] for first, last in extent.runs], extent, None)
        assert len(found) == extent.stop
    return found


def test_json_members_hold_columns(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A kite."}]
    write(tmp_path, [("1.json", json.dumps({"id": "x", "conversations": talk}).encode()), ("1.PNG", b"picture")])
    (row,) = read_all(source(tmp_path))
    assert sample(row).scored_texts == ("A kite.",)
    assert (sample(row).images, row.sample_id) == ((b"picture",), "1")
    (row,) = read_all(source(tmp_path, columns=Columns(id="id")))
    assert row.sample_id == "x"


def test_a_text_member_goes_before_the_json_beside_it(tmp_path: Path) -> None:
    metadata = json.dumps({"caption": "json", "captions": ["a", "b"], "url": "http://x", "key": "0"}).encode()
    write(tmp_path, [("1.jpg", b"p"), ("1.txt", b"txt"), ("1.json", metadata)])
    assert texts(read_all(source(tmp_path))) == ["txt"]
    assert texts(read_all(source(tmp_path, columns=Columns(text="caption")))) == ["json"]
    (row,) = read_all(source(tmp_path, columns=Columns(text="captions")))
    assert captions(row).texts == ("a", "b")


def test_suffixes_may_differ_from_sample_to_sample(tmp_path: Path) -> None:
    members = [("1.jpg", b"1"), ("1.txt", b"a"), ("2.webp", b"2"), ("2.txt", b"b"), ("3.txt", b"c"), ("4.jpg", b"4")]
    write(tmp_path, members)
    one, two, three, four = read_all(source(tmp_path))
    assert [sample(row).images for row in (one, two)] == [(b"1",), (b"2",)]
    assert [failure(row).code for row in (three, four)] == [FailureCode.IMAGE_MISSING, FailureCode.TEXT_MISSING]


def test_several_pictures_of_a_sample_are_named(tmp_path: Path) -> None:
    write(tmp_path, [("1.jpg", b"1"), ("1.png", b"2"), ("1.0.jpg", b"3"), ("1.txt", b"a")])
    with pytest.raises(ConfigError, match=r"several columns may hold the image .*--image-column"):
        source(tmp_path).shards()
    (row,) = read_all(source(tmp_path, columns=Columns(image="0.jpg,png,jpg")))
    assert sample(row).images == (b"3", b"2", b"1")
    columns = Columns(image="jpg", contrast_image="0.jpg")
    (row,) = read_all(source(tmp_path, columns=columns, contrast_images=True))
    assert sample(row).contrast_images == (b"3",)
    write(tmp_path, [("1.jpg", b"1"), ("1.txt", b"a"), ("2.jpg", b"1"), ("2.png", b"2"), ("2.txt", b"a")])
    _, odd = read_all(source(tmp_path))
    assert "several pictures (jpg, png)" in failure(odd).message


# --- damage and hostility ---------------------------------------------------------------------------------------


def header_of(data: bytes, name: str) -> int:
    return data.index(name.encode() + b"\0")


def test_a_shard_that_is_cut_off_loses_what_is_missing_and_no_more(tmp_path: Path) -> None:
    data = tar_bytes(sample_members(KEYS[:4]), tarfile.USTAR_FORMAT)
    at = header_of(data, "002.txt")
    cuts = {
        "inside a member": at + 512 + 3,
        "inside a header": at + 100,
        "between members": at,
        "before the closing blocks": header_of(data, "003.txt") + 1024,
    }
    for where, cut in cuts.items():
        (tmp_path / "x.tar").write_bytes(data[:cut])
        for rows in (1, 2, 9):
            read = read_units(source(tmp_path), rows)
            whole = 4 if where == "before the closing blocks" else 2
            assert texts(read[:whole]) == [f"kite № {key}" for key in KEYS[:whole]], where
            *broken, missing = read[whole:]
            assert len(broken) == (0 if whole == 4 else 1), where
            assert all(row.sample_id == "002" for row in broken)
            codes = {FailureCode.TEXT_MISSING, FailureCode.ROW_UNREADABLE}
            assert {failure(row).code for row in broken} <= codes
            assert failure(missing).code is FailureCode.ROW_UNREADABLE
            assert f"cut off or damaged at byte {cut:,}" in failure(missing).message or where == "inside a header"


def test_a_header_that_is_overwritten_ends_the_shard_and_is_seen(tmp_path: Path) -> None:
    data = bytearray(tar_bytes(sample_members(KEYS[:4]), tarfile.USTAR_FORMAT))
    at = header_of(bytes(data), "002.jpg")
    data[at : at + 512] = b"\xff" * 512
    (tmp_path / "x.tar").write_bytes(data)
    *good, missing = read_all(source(tmp_path))
    assert texts(good) == [f"kite № {key}" for key in KEYS[:2]]
    assert f"damaged at byte {at:,}" in failure(missing).message


@pytest.mark.parametrize("content", [b"", b"nonsense", b"x" * 5000])
def test_a_file_that_is_no_tar_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.tar cannot be read as webdataset: it does not begin with"):
        source(tmp_path).shards()


def test_an_empty_tar_has_no_rows(tmp_path: Path) -> None:
    write(tmp_path, [])
    assert [shard.rows for shard in source(tmp_path).shards()] == [0]


def test_what_is_no_file_is_no_part_of_a_sample_and_nothing_is_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links, devices, directories and names that lead elsewhere; a pickle that would run if it were loaded."""

    class Bomb:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("unpickled",))

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for kind, target in ((tarfile.SYMTYPE, "/etc/hostname"), (tarfile.LNKTYPE, "1.txt"), (tarfile.CHRTYPE, "")):
            info = tarfile.TarInfo("1.jpg")
            info.type, info.linkname = kind, target
            tar.addfile(info)
        for name, data in (
            ("../../1.txt", b"up"),
            ("/abs/2.jpg", b"p"),
            ("/abs/2.txt", b"abs"),
            ("/abs/2.pkl", pickle.dumps(Bomb())),
            ("/abs/2.pyd", pickle.dumps(Bomb())),
            ("__meta__", b"skipped"),
            ("no-suffix", b"skipped"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (tmp_path / "x.tar").write_bytes(buffer.getvalue())
    for name in ("extract", "extractall", "_extract_member"):
        monkeypatch.setattr(tarfile.TarFile, name, lambda *_, **__: pytest.fail("extracted"))
    first, second = read_all(source(tmp_path, columns=Columns(image="image", text="txt")))
    assert (failure(first).sample_id, failure(first).code) == ("../../1", FailureCode.IMAGE_MISSING)
    assert (second.sample_id, texts([second])) == ("/abs/2", ["abs"])
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


def test_limits_and_broken_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.sources.webdataset.MAX_TEXT", 20)
    members = [
        *[("ok.jpg", b"p"), ("ok.txt", b"fine")],
        *[("big.jpg", b"p" * 100), ("big.txt", b"a")],
        *[("long.jpg", b"p"), ("long.txt", b"a" * 21)],
        *[("latin.jpg", b"p"), ("latin.txt", b"\xff")],
        *[("twice.jpg", b"p"), ("twice.txt", b"a"), ("twice.txt", b"b")],
    ]
    write(tmp_path, members)
    (tmp_path / "x.tar").unlink(missing_ok=True)
    format = WebDataset(max_image_bytes=99)
    data = (tmp_path / "train-000.tar").read_bytes()
    index = format.index(io.BytesIO(data))
    extent = index.extent(0, len(index))
    found = format.records([data[first:last] for first, last in extent.runs], extent, None)
    errors = {
        record["__key__"]: [(name, value.code.value) for name, value in record.items() if isinstance(value, RowError)]
        for record in found
        if isinstance(record, dict)
    }
    assert errors == {
        "ok": [],
        "big": [("jpg", "image_too_large"), ("image", "image_too_large")],
        "long": [("txt", "row_unreadable")],
        "latin": [("txt", "text_invalid")],
        "twice": [("txt", "row_unreadable")],
    }


def test_a_json_member_that_is_broken_fails_what_it_should_hold(tmp_path: Path) -> None:
    members = [("1.jpg", b"p"), ("1.json", b'{"caption": "a"}'), ("2.jpg", b"p"), ("2.json", b"{")]
    write(tmp_path, members)
    good, bad = read_all(source(tmp_path))
    assert texts([good]) == ["a"]
    assert failure(bad).code is FailureCode.ROW_UNREADABLE


def test_a_key_that_is_no_text_becomes_an_id_that_is(tmp_path: Path) -> None:
    data = tar_bytes(sample_members(["key"]), tarfile.USTAR_FORMAT).replace(b"key.", b"k\xff\xfe.")
    blocks = bytearray(data)
    for at in (0, 1024):  # checksums are over the name too
        blocks[at + 148 : at + 156] = b" " * 8
        blocks[at + 148 : at + 156] = b"%06o\0 " % sum(blocks[at : at + 512])
    (tmp_path / "x.tar").write_bytes(blocks)
    (row,) = read_all(source(tmp_path))
    assert row.sample_id == "k\\xff\\xfe"
    row.sample_id.encode()


@settings(max_examples=150)
@given(
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.lists(st.tuples(st.integers(0, 6000), st.binary(min_size=1, max_size=12)), min_size=1, max_size=3),
    st.integers(0, 8000),
)
def test_whatever_happens_to_a_tar_it_is_refused_or_read(
    format: int, damage: list[tuple[int, bytes]], cut: int
) -> None:
    members = [("x" * 120 + ".jpg", b"long name"), ("ü.txt", b"a"), *sample_members(["a", "b"])]
    data = bytearray(tar_bytes(members, format))
    for at, noise in damage:
        data[at : at + len(noise)] = noise
    damaged = bytes(data[: len(data) - cut] if cut < len(data) else data)
    try:
        read = records_by(2, damaged)
    except ValueError as error:
        assert "does not begin with a member" in str(error)
        return
    assert all(isinstance(record, (dict, RowError)) for record in read)


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
