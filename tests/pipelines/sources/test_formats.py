from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli.options import build_parser
from pipelines.sources import Source
from pipelines.sources.byte_index import Extent
from pipelines.sources.columns import Columns
from pipelines.sources.formats import FORMATS, SourceFormat, detect_format
from pipelines.sources.indexed import IndexedSource
from pipelines.sources.jsonl import JsonLines
from pipelines.sources.listing import published_names
from pipelines.sources.parquet import ParquetSource
from pipelines.sources.rows import Record
from scorer.errors import ConfigError
from tests.pipelines.helpers import write_dataset
from tests.pipelines.sources.helpers import make_job, read_all, sample_members, source, tar_bytes, texts


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.parquet", "b/c.pq", "dataset_info.json"], "parquet"),
        (["a.tar", "b.tar", "stats.json"], "webdataset"),
        (["a.json"], "json"),
        (["a.jsonl", "b.ndjson.gz", "c.jsonl.zst", "meta.json"], "jsonl"),
        (["_hidden.tar", "a.json"], "json"),
    ],
)
def test_the_format_is_told_by_the_files(tmp_path: Path, names: list[str], expected: str) -> None:
    assert detect_format(str(write(tmp_path, *names, "pictures/1.jpg"))) == expected


def test_files_of_several_formats_need_a_name(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"a.parquet": 2})
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"image": "1", "caption": "x"}'))
    with pytest.raises(ConfigError, match=r"several formats \(1 jsonl, 1 parquet\); name one with --format"):
        source(tmp_path)
    assert isinstance(source(tmp_path, format="parquet"), ParquetSource)
    named = source(tmp_path, format="jsonl")
    assert isinstance(named, IndexedSource)
    assert texts(read_all(named)) == ["x"]


def test_nothing_that_is_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no file that ends in \.parquet, .* or \.\w+\.zst; passed") as caught:
        source(write(tmp_path, "a.txt"))
    assert ".csv" not in str(caught.value), "a format that is refused must not be asked for"


@pytest.mark.parametrize("name", ["a.csv", "a.TSV", "a.xlsx", "a.tar.gz", "a.tgz", "a.zip", "a.mds", "a.csv.gz"])
@pytest.mark.parametrize("url", ["{}", "{}/{}", "{}/*"])
def test_a_format_that_is_not_read_is_refused_by_its_own_name(tmp_path: Path, name: str, url: str) -> None:
    write(tmp_path, name)
    with pytest.raises(ConfigError) as caught:
        source(url.format(tmp_path, name))
    assert name in str(caught.value)
    assert "is not read; " in str(caught.value)
    assert "Parquet:" not in str(caught.value)


def test_a_named_format_reads_what_another_suffix_hides(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"a.csv": 2})
    assert len(read_all(source(tmp_path / "a.csv", format="parquet"))) == 2


def test_what_is_not_read_beside_shards_is_passed_over(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"a.parquet": 2})
    assert source(write(tmp_path, "labels.csv")).account()["passed_over"] == {
        ".csv": {"count": 1, "examples": ["labels.csv"]}
    }


@pytest.mark.parametrize("name", ["a.jsonlines", "a.JSONLines.gz"])
def test_json_lines_by_its_long_name(tmp_path: Path, name: str) -> None:
    line = b'{"image": "1", "caption": "x"}\n'
    (tmp_path / name).write_bytes(gzip.compress(line) if name.endswith("gz") else line)
    for url in (tmp_path, tmp_path / name):
        assert texts(read_all(source(url))) == ["x"]


def test_names_that_would_be_one_are_refused() -> None:
    suffixes = (".jsonl", ".jsonl.gz")
    assert published_names(["a.jsonl", "b/a.jsonl.gz", "odd"], suffixes) == [
        "a.parquet",
        "b/a.parquet",
        "odd.parquet",
    ]
    with pytest.raises(ConfigError, match=r"of a\.jsonl and of a\.jsonl\.gz would both be published as a\.parquet"):
        published_names(["a.jsonl", "a.jsonl.gz"], suffixes)


def test_merged_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    from pipelines.run.job import prepare

    (tmp_path / "a.tar").write_bytes(tar_bytes(sample_members(["1"])))
    with pytest.raises(ConfigError, match=r"keeps the columns of Parquet and Arrow, but .* is webdataset"):
        prepare(make_job(tmp_path / "a.tar", tmp_path / "out", layout="merged"))
    assert not (tmp_path / "out").exists()


def test_a_column_that_is_asked_for_and_absent(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes(sample_members(["1"])))
    with pytest.raises(ConfigError, match=r"there is no column 'alt'; name another with --text-column") as caught:
        source(tmp_path, columns=Columns(text="alt")).shards()
    for name in ("txt", "image", "__key__", str(tmp_path / "a.tar")):
        assert name in str(caught.value)


def test_a_format_is_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy format, added to the records alone, is detected, opened, offered by the command line and recorded."""

    class Shouted(JsonLines):
        name = "shouted"
        suffixes = (".shouted",)

        def records(self, runs: Sequence[bytes], extent: Extent, columns: Columns | None) -> list[Record]:
            return super().records([run.lower() for run in runs], extent, columns)

    def open_shouted(url: str, columns: Columns, **options: Any) -> Source:
        return IndexedSource(url, Shouted(), columns, **options)

    toy = SourceFormat(name="shouted", words="JSON Lines in capitals", suffixes=Shouted.suffixes, open=open_shouted)
    monkeypatch.setitem(FORMATS, "shouted", toy)
    (tmp_path / "a.shouted").write_bytes(b'{"IMAGE": "A.PNG", "CAPTION": "A RED KITE"}\n')
    found = source(tmp_path)
    assert texts(read_all(found)) == ["a red kite"]
    assert found.fingerprint()["format"] == "shouted"
    assert [shard.name for shard in found.shards()] == ["a.parquet"]
    assert "shouted: JSON Lines in capitals" in " ".join(build_parser().format_help().split())


def test_a_format_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="unknown format 'csv'; known formats: parquet, arrow, webdataset, json, jsonl"
    ):
        source(write(tmp_path, "a.csv"), format="csv")
