"""URL columns: off unless hosts are allowed, and then through the guarded fetcher."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources.images import ImageOptions, ImageResolver
from scorer.errors import ConfigError, FailureCode, RowError
from scorer.fetching.fetcher import Fetcher
from tests.pipelines.sources.helpers import failure, read_all, sample, source
from tests.scorer.web import Resolver, body, first_loopback, serving

URL = "http://images.example.org:{port}/1.jpg"


def write(folder: Path, kind: str, urls: list[Any]) -> None:
    if kind == "parquet":
        pq.write_table(pa.table({"url": urls, "caption": ["a"] * len(urls)}), folder / "x.parquet")
    else:
        records = [{"url": url, "caption": "a"} for url in urls]
        (folder / "x.jsonl").write_text("\n".join(json.dumps(record) for record in records))


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_urls_are_fetched_from_allowed_hosts_only(tmp_path: Path, kind: str) -> None:
    with serving(body(b"picture")) as site:
        urls = [URL.format(port=site.port), f"http://127.0.0.1:{site.port}/", f"http://evil.net:{site.port}/", "a.jpg"]
        write(tmp_path, kind, urls)
        fetcher = Fetcher(
            (f"images.example.org:{site.port}",), resolve=Resolver("127.0.0.1"), is_allowed=first_loopback
        )
        rows = read_all(source(tmp_path, images=ImageOptions(fetcher=fetcher)))
        assert len(site.asked) == 1
        off = read_all(source(tmp_path))
        assert len(site.asked) == 1
    assert sample(rows[0]).images == (b"picture",)
    assert [failure(row).code for row in rows[1:3]] == [FailureCode.IMAGE_URL_REFUSED] * 2
    assert sample(rows[3]).images == (str(tmp_path / "a.jpg"),)
    assert [failure(row).code for row in off[:3]] == [FailureCode.IMAGE_URL_REFUSED] * 3
    assert "--allow-image-host" in failure(off[0]).message


def test_several_urls_of_a_row_and_the_limit_of_bytes(tmp_path: Path) -> None:
    with serving(body(b"0123456789")) as site:
        url = URL.format(port=site.port)
        write(tmp_path, "parquet", [[url, url], [url]])
        for limit, expected in ((10, (b"0123456789",) * 2), (9, None)):
            fetcher = Fetcher(
                ("images.example.org:" + str(site.port),),
                limit,
                resolve=Resolver("127.0.0.1"),
                is_allowed=first_loopback,
            )
            first, _ = read_all(source(tmp_path, images=ImageOptions(fetcher=fetcher)))
            if expected is None:
                assert failure(first).code is FailureCode.IMAGE_TOO_LARGE
            else:
                assert sample(first).images == expected


def test_hosts_and_root_are_part_of_what_a_run_is(tmp_path: Path) -> None:
    write(tmp_path, "parquet", ["a.jpg"])
    plain = source(tmp_path)
    assert set(plain.fingerprint()) == {"columns"}
    options = ImageOptions(root=str(tmp_path), fetcher=Fetcher(("b.org", "a.org")))
    named = source(tmp_path, images=options)
    assert named.fingerprint()["image_root"] == str(tmp_path)
    assert named.fingerprint()["image_hosts"] == ["a.org", "b.org"]
    assert pickle.loads(pickle.dumps(named)).images == options


ROOT = "http://images.example.org:{port}/dir"


def targets(site: Any) -> list[str]:
    """What a site was asked for."""
    return [path for path, _ in site.asked]


def of(site: Any, **options: Any) -> ImageOptions:
    fetcher = Fetcher((f"images.example.org:{site.port}",), resolve=Resolver("127.0.0.1"), is_allowed=first_loopback)
    return ImageOptions(root=ROOT.format(port=site.port), fetcher=fetcher, **options)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("1.jpg", "/dir/1.jpg"),
        ("./a//1.jpg", "/dir/a/1.jpg"),
        ("a b/№.jpg", "/dir/a%20b/%E2%84%96.jpg"),
        ("100%.jpg?x=1#y", "/dir/100%25.jpg%3Fx=1%23y"),
        ("a\\b.jpg", "/dir/a/b.jpg"),
    ],
)
def test_a_root_on_the_web(tmp_path: Path, path: str, target: str) -> None:
    write(tmp_path, "jsonl", [path])
    with serving(body(b"picture")) as site:
        (row,) = read_all(source(tmp_path, images=of(site)))
        assert sample(row).images == (b"picture",)
        assert targets(site) == [target]


@pytest.mark.parametrize("path", ["../1.jpg", "a/../../1.jpg", "/1.jpg", "a\\..\\..\\1.jpg", "file:///etc/passwd"])
def test_a_path_stays_below_the_root_on_the_web(tmp_path: Path, path: str) -> None:
    write(tmp_path, "jsonl", [path])
    with serving(body(b"picture")) as site:
        (row,) = read_all(source(tmp_path, images=of(site)))
        assert site.asked == []
    assert failure(row).code is FailureCode.IMAGE_MISSING
    assert "is not below the image root" in failure(row).message


@pytest.mark.parametrize(
    ("root", "problem"),
    [
        ("http://other.example.org/dir", "is not among the allowed ones; add it with --allow-image-host"),
        ("http://127.0.0.1/dir", "addresses are not allowed"),
        ("HTTPS://user:secret@images.example.org/", "authority"),
        ("http://images.example.org/dir?x=1", "has a query or a fragment; give the folder's URL"),
    ],
)
def test_a_root_that_may_not_be_fetched_from_is_refused_at_once(root: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        ImageOptions(root=root, fetcher=Fetcher(("images.example.org",)))
    assert "secret" not in str(refused.value)
    with pytest.raises(ConfigError, match="--allow-image-host"):
        ImageOptions(root="https://images.example.org/dir")


def test_images_beside_a_shard_on_the_web_obey_the_same_rules() -> None:
    with serving(body(b"picture")) as site:
        resolver = ImageOptions(fetcher=of(site).fetcher).resolver(
            fsspec.filesystem("memory"), ROOT.format(port=site.port) + "/data/x.parquet"
        )
        object.__setattr__(resolver, "folder", ROOT.format(port=site.port) + "/data")
        assert resolver.images("../1.jpg") == (b"picture",)
        assert targets(site) == ["/dir/1.jpg"]
        off = ImageResolver(resolver.fs, resolver.folder, False, 100, Fetcher())
        with pytest.raises(RowError, match="--allow-image-host"):
            off.images("1.jpg")
