"""WebDataset shards that are cut off, damaged or made to do harm."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sources.columns import Columns
from pipelines.sources.webdataset import WebDataset
from scorer.errors import ConfigError, FailureCode, RowError
from tests.pipelines.sources.helpers import (
    KEYS,
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
    write_tar(tmp_path, [])
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
    assert (sample(first).sample_id, sample(first).images) == ("../../1", ())  # the links are 1.jpg, of no sample
    assert (second.sample_id, texts([second])) == ("/abs/2", ["abs"])
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("first", [False, True])
def test_a_sample_whose_image_is_a_link_fails(tmp_path: Path, kind: bytes, first: bool) -> None:
    """Without its image it would be a row of text alone. The link may precede the sample's other members or not."""
    link = tarfile.TarInfo("b.jpg")
    link.type, link.linkname = kind, "a.jpg"
    other = tarfile.TarInfo("latest.jpg")
    other.type, other.linkname = kind, "a.jpg"
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        if first:
            tar.addfile(link)
        for name, data in (("a.jpg", b"p"), ("a.txt", b"one"), ("b.txt", b"two"), ("c.jpg", b"p"), ("c.txt", b"three")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if not first:
            tar.addfile(link)
        tar.addfile(other)  # no sample has anything else of this name
    src = source(tmp_path)
    for rows in (read_all(src), read_units(src, 1)):
        one, two, three = rows
        assert [row.sample_id for row in rows] == ["a", "b", "c"]
        assert (sample(one).images, sample(three).images) == ((b"p",), (b"p",))
        assert "the member 'jpg' of 'b' is a link to 'a.jpg', which is not followed" in failure(two).message
    assert src.account()["members_passed_over"] == {"link": {"count": 1, "examples": ["latest.jpg"]}}


def test_limits_and_broken_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.sources.webdataset.MAX_TEXT", 20)
    members = [
        *[("ok.jpg", b"p"), ("ok.txt", b"fine")],
        *[("big.jpg", b"p" * 100), ("big.txt", b"a")],
        *[("long.jpg", b"p"), ("long.txt", b"a" * 21)],
        *[("latin.jpg", b"p"), ("latin.txt", b"\xff")],
        *[("twice.jpg", b"p"), ("twice.txt", b"a"), ("twice.txt", b"b")],
    ]
    write_tar(tmp_path, members)
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
    write_tar(tmp_path, members)
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
        read = tar_records(2, damaged)
    except ValueError as error:
        assert "does not begin with a member" in str(error)
        return
    assert all(isinstance(record, (dict, RowError)) for record in read)
