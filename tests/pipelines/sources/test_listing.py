"""Which files an input has: links, names in capitals, what may not be read, and what is no file."""

from __future__ import annotations

import gzip
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

from pipelines.sources.account import describe_account
from pipelines.sources.listing import list_files
from pipelines.sources.parquet import SUFFIXES
from scorer.errors import ConfigError
from tests.pipelines.helpers import write_dataset
from tests.pipelines.sources.helpers import read_all, source, texts


def names(url: Path | str) -> list[str]:
    return [file.name for file in list_files(str(url), SUFFIXES).files]


def passed_over(url: Path | str) -> dict[str, list[str]]:
    reasons = list_files(str(url), SUFFIXES).passed_over.to_dict()
    assert all(one["count"] == len(one["examples"]) for one in reasons.values())
    return {reason: one["examples"] for reason, one in reasons.items()}


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A hub cache's snapshot: links to blobs, one to a folder, and one file that is no link."""
    write_dataset(tmp_path / "made", {"0.parquet": 2, "1.parquet": 1, "x.parquet": 3, "real.parquet": 2})
    (tmp_path / "blobs").mkdir()
    (tmp_path / "other").mkdir()
    folder = tmp_path / "snap" / "data"
    folder.mkdir(parents=True)
    for i in range(2):
        (tmp_path / "made" / f"{i}.parquet").rename(tmp_path / "blobs" / f"b{i}")
        (folder / f"train-{i}.parquet").symlink_to(f"../../blobs/b{i}")
    (tmp_path / "made" / "x.parquet").rename(tmp_path / "other" / "x.parquet")
    (tmp_path / "made" / "real.parquet").rename(folder / "real.parquet")
    (tmp_path / "snap" / "more").symlink_to("../other")
    return tmp_path / "snap"


DATA = ["data/real.parquet", "data/train-0.parquet", "data/train-1.parquet"]


def test_links_to_files_and_folders_are_followed(snapshot: Path) -> None:
    assert names(snapshot) == [*DATA, "more/x.parquet"]
    found = source(snapshot)
    assert [shard.rows for shard in found.shards()] == [2, 2, 1, 3]
    assert found.account() == {"seen": 4, "read": 4, "passed_over": {}}


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("snap/data/*.parquet", ["real.parquet", "train-0.parquet", "train-1.parquet"]),
        ("snap/*/*.parquet", [*DATA, "more/x.parquet"]),
        ("snap/**/*.parquet", [*DATA, "more/x.parquet"]),
        ("snap/**", [*DATA, "more/x.parquet"]),
        ("snap/m?re/x.parquet", ["more/x.parquet"]),
        ("s*/data/train-[01].parquet", ["snap/data/train-0.parquet", "snap/data/train-1.parquet"]),
    ],
)
def test_a_glob_follows_links_too(snapshot: Path, glob: str, expected: list[str]) -> None:
    assert names(f"{snapshot.parent}/{glob}") == expected


def test_globs_match_what_fsspec_matches(tmp_path: Path) -> None:
    for name in ("a.parquet", "b/a.parquet", "b/c/a.parquet", "b/c/d/a.parquet", "b2/c/a.parquet", "b2/c/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    fs = fsspec.filesystem("file")
    for glob in ("*", "*.parquet", "**", "**/*", "*/*", "b*/c/*", "b/**", "b/**/a.parquet", "b?/**/x", "**/c/*"):
        whole = f"{tmp_path}/{glob}"
        expected = sorted(path for path, info in fs.glob(whole, detail=True).items() if info["type"] == "file")
        assert sorted(file.path for file in list_files(whole, SUFFIXES).files) == expected, glob


def test_several_revisions_in_a_hub_cache_are_refused(tmp_path: Path) -> None:
    one, other = (f"datasets--o--{name}" for name in "ab")
    revisions = ("0" * 40, "1" * 40)
    write_dataset(tmp_path, {f"{one}/snapshots/{revisions[0]}/data/x.parquet": 1})
    write_dataset(tmp_path, {f"{other}/snapshots/{revisions[1]}/x.parquet": 1})
    assert len(names(tmp_path)) == 2  # two datasets
    again = tmp_path / one / "snapshots" / revisions[1] / "data"
    again.mkdir(parents=True)
    (again / "x.parquet").symlink_to(tmp_path / one / "snapshots" / revisions[0] / "data" / "x.parquet")
    for folder in (tmp_path, tmp_path / one, tmp_path / one / "snapshots"):
        with pytest.raises(ConfigError, match=rf"has 2 revisions of one dataset, .*{revisions[0]} and .*of one"):
            names(folder)
    assert names(again.parent) == ["data/x.parquet"]
    assert len(names(f"{tmp_path}/{one}/snapshots/*/data/*.parquet")) == 2  # asked for


def test_links_in_a_circle_end(snapshot: Path) -> None:
    (snapshot / "data" / "up").symlink_to("..")
    (snapshot / "data" / "self").symlink_to("self")
    (snapshot.parent / "other" / "back").symlink_to("../snap")
    loops = {"link to a folder that contains it": ["data/up", "more/back"], "broken link": ["data/self"]}
    assert names(snapshot) == [*DATA, "more/x.parquet"]
    assert {reason: sorted(found) for reason, found in passed_over(snapshot).items()} == loops


@pytest.mark.parametrize("url", ["", "/data", "/data/*.parquet", "/data/gone.parquet"])
def test_a_shard_whose_link_leads_nowhere_is_named(snapshot: Path, url: str) -> None:
    (snapshot / "data" / "gone.parquet").symlink_to("../../blobs/b9")
    with pytest.raises(ConfigError, match=r"data/gone\.parquet is a link to a file that does not exist; download"):
        names(f"{snapshot}{url}")


def test_suffixes_count_in_any_case(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"A.PARQUET": 2, "b.parquet": 1, "c.Pq": 1})
    assert names(tmp_path) == ["A.PARQUET", "b.parquet", "c.Pq"]
    assert len(read_all(source(tmp_path))) == 4


def test_suffixes_of_indexed_formats_count_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "a.JSONL.GZ").write_bytes(gzip.compress(b'{"image": "1", "caption": "x"}\n'))
    (tmp_path / "b.Jsonl").write_bytes(b'{"image": "1", "caption": "y"}\n')
    found = source(tmp_path)
    assert texts(read_all(found)) == ["x", "y"]
    assert [shard.name for shard in found.shards()] == ["a.parquet", "b.parquet"]


def denied(monkeypatch: pytest.MonkeyPatch, function: str, name: str) -> None:
    """Refuse one path to a function of ``os``, as its permissions would: tests may run as root."""
    real: Callable[..., Any] = getattr(os, function)

    def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, function, refuse)


@pytest.mark.parametrize("url", ["", "/*/*.parquet", "/**/*.parquet"])
def test_a_folder_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    write_dataset(tmp_path, {"a/x.parquet": 6, "b/x.parquet": 2})
    denied(monkeypatch, "scandir", "/b")
    with pytest.raises(ConfigError, match=r"cannot be read completely: .*/b: Permission denied; check its perm"):
        names(f"{tmp_path}{url}")
    assert names(f"{tmp_path}/a") == ["x.parquet"]


def test_a_file_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path, {"a.parquet": 1, "b.parquet": 1})
    real = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "b.parquet":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match=r"b\.parquet: Permission denied"):
        names(tmp_path)


def test_a_remote_folder_that_may_not_be_listed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """fsspec's own walk leaves such a folder out."""

    class Walked(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
        """Lists folder by folder, as file systems over SFTP, HDFS or HTTP do."""

        protocol = "walked"
        find = AbstractFileSystem.find
        denies = False

        def ls(self, path: str, *args: Any, **kwargs: Any) -> Any:
            if self.denies and path.rstrip("/").endswith("/b"):
                raise PermissionError(13, "Permission denied", path)
            return super().ls(path, *args, **kwargs)

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return str(super()._strip_protocol(path.replace("walked://", "memory://")))

    fsspec.register_implementation("walked", Walked, clobber=True)
    for name in ("a/x.parquet", "b/x.parquet"):
        fsspec.filesystem("memory").pipe_file(f"/denied/{name}", b"PAR1")
    assert names("walked://denied") == ["a/x.parquet", "b/x.parquet"]
    monkeypatch.setattr(Walked, "denies", True)
    for url in ("walked://denied", "walked://denied/**/*.parquet"):
        with pytest.raises(ConfigError, match="Permission denied"):
            names(url)


def special_files(folder: Path) -> None:
    os.mkfifo(folder / "pipe.parquet")
    here = Path.cwd()
    os.chdir(folder)  # a socket's path must be short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("socket.parquet")
    finally:
        os.chdir(here)
    (folder / "device.parquet").symlink_to("/dev/zero")


KINDS = {"named pipe": ["pipe.parquet"], "socket": ["socket.parquet"], "device": ["device.parquet"]}


@pytest.mark.parametrize("url", ["", "/*.parquet"])
def test_pipes_sockets_and_devices_are_passed_over(tmp_path: Path, url: str) -> None:
    write_dataset(tmp_path, {"a.parquet": 2})
    special_files(tmp_path)
    assert names(f"{tmp_path}{url}") == ["a.parquet"]
    assert passed_over(f"{tmp_path}{url}") == KINDS
    assert len(read_all(source(f"{tmp_path}{url}"))) == 2


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, (name,) in KINDS.items()])
def test_a_pipe_as_the_input_is_refused_by_its_kind(tmp_path: Path, kind: str, name: str) -> None:
    special_files(tmp_path)
    for format in (None, "parquet", "jsonl"):
        with pytest.raises(ConfigError, match=f"is a {kind}; give a regular file"):
            source(tmp_path / name, format=format).shards()


def test_everything_seen_is_accounted_for(tmp_path: Path) -> None:
    write_dataset(
        tmp_path, {"a.parquet": 2, "sub/b.parquet": 1, "_temporary/0/c.parquet": 1, "_temporary/d.parquet": 1}
    )
    for name in (".gitattributes", "notes.TXT", "LICENSE", *(f"images/{i}.jpg" for i in range(5))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = source(tmp_path).account()
    assert (found["seen"], found["read"]) == (11, 2)
    assert found["passed_over"] == {
        ".jpg": {"count": 5, "examples": ["images/0.jpg", "images/1.jpg", "images/2.jpg"]},
        "hidden": {"count": 2, "examples": [".gitattributes", "_temporary"]},
        ".txt": {"count": 1, "examples": ["notes.TXT"]},
        "without a suffix": {"count": 1, "examples": ["LICENSE"]},
    }
    assert describe_account(found) == (
        "2 of 11 files read; passed over: 5 .jpg (images/0.jpg, images/1.jpg, images/2.jpg, …), 2 hidden "
        "(.gitattributes, _temporary), 1 .txt (notes.TXT), 1 without a suffix (LICENSE)"
    )


def test_a_remote_folder_is_accounted_for_alike(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("a.parquet", "_temporary/c.parquet", "_temporary/d.parquet", "x.txt"):
        memory.pipe_file(f"/accounted/{name}", b"PAR1")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"PAR1")
    assert passed_over("memory://accounted") == passed_over(tmp_path) == {"hidden": ["_temporary"], ".txt": ["x.txt"]}


def test_folders_that_a_glob_matches_are_said(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"a.parquet": 2, "sub/b.parquet": 1})
    assert names(f"{tmp_path}/*") == ["a.parquet"]
    assert passed_over(f"{tmp_path}/*") == {"folder": ["sub"]}


@pytest.mark.parametrize("glob", ["train/*", "**"])
def test_a_glob_passes_over_what_lies_beside_its_shards(tmp_path: Path, glob: str) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    for name in ("metadata.jsonl", "0.png", "README.md", "part-0"):
        (folder / name).write_bytes(b"")
    found = list_files(f"{tmp_path}/{glob}", (".jsonl",))
    assert [Path(file.path).name for file in found.files] == ["metadata.jsonl", "part-0"]
    reasons = found.passed_over.to_dict()
    assert {".png", ".md"} <= set(reasons)
    # where nothing has the format's suffix, a glob is taken at its word
    assert [file.name for file in list_files(f"{folder}/*.png", (".jsonl",)).files] == ["0.png"]


def test_a_name_that_is_not_text_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"a.parquet": 1})
    (tmp_path / "a.parquet").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.parquet"))
    with pytest.raises(ConfigError, match=r"is not valid UTF-8; rename it"):
        names(tmp_path)


@pytest.mark.parametrize("url", ["{}", "{}/*.parquet", "{}/a.parquet"])
def test_a_folder_whose_name_is_not_text_is_refused(tmp_path: Path, url: str) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    write_dataset(tmp_path / "x", {"a.parquet": 1}).rename(folder)
    with pytest.raises(ConfigError, match=r"which is not valid UTF-8; rename the file or folder"):
        names(url.format(folder))


def test_an_input_without_shards_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"has no file that ends in .*; passed over: 1 \.txt \(a\.txt\)"):
        names(tmp_path)
