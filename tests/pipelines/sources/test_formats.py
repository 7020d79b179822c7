from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pipelines.sources.columns import Columns
from pipelines.sources.formats import detect_format
from pipelines.sources.indexed import IndexedSource, published_names
from pipelines.sources.parquet import ParquetSource
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
    with pytest.raises(ConfigError, match=r"several formats \(1 of jsonl, 1 of parquet\); name one with --format"):
        source(tmp_path)
    assert isinstance(source(tmp_path, format="parquet"), ParquetSource)
    named = source(tmp_path, format="jsonl")
    assert isinstance(named, IndexedSource)
    assert texts(read_all(named)) == ["x"]


def test_nothing_that_is_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no file that ends in \.parquet .* or \.tar or \.json"):
        source(write(tmp_path, "a.csv"))


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
    with pytest.raises(ConfigError, match=r"keeps the columns of a Parquet dataset, but .* is webdataset"):
        prepare(make_job(tmp_path / "a.tar", tmp_path / "out", layout="merged"))
    assert not (tmp_path / "out").exists()


def test_a_column_that_is_asked_for_and_absent(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes(sample_members(["1"])))
    with pytest.raises(ConfigError, match=r"there is no column 'alt'; name another with --text-column") as caught:
        source(tmp_path, columns=Columns(text="alt")).shards()
    for name in ("txt", "image", "__key__", str(tmp_path / "a.tar")):
        assert name in str(caught.value)
