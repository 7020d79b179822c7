"""Arrow IPC: what ``datasets`` writes with ``save_to_disk`` and keeps in its cache, and Feather."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.feather
import pytest

from pipelines.sources import ReadRow, Source
from pipelines.sources.arrow import ArrowSource
from scorer.errors import ConfigError, FailureCode, RunError
from scorer.results import Failure
from tests.pipelines.helpers import caption_table, run
from tests.pipelines.sources.helpers import failure, make_job, read_all, read_units, sample, source

ROWS = 23


def write(path: Path, table: pa.Table, *, stream: bool = True, batch: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as file, make(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return path


def told(row: ReadRow) -> Any:
    return (row.sample_id, row.code) if isinstance(row, Failure) else (row.sample_id, sample(row).scored_texts)


def expected(tag: str = "t", rows: int = ROWS) -> list[Any]:
    return [(f"{tag}{i}", FailureCode.TEXT_MISSING if i == 5 else (f"{tag} kite № {i}",)) for i in range(rows)]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("batch", [1, 4, 100])
def test_both_formats_are_read_by_any_units(tmp_path: Path, stream: bool, batch: int) -> None:
    write(tmp_path / "a.arrow", caption_table(ROWS, "t"), stream=stream, batch=batch)
    found: Source = source(tmp_path)
    assert isinstance(found, ArrowSource)
    assert [(shard.name, shard.rows) for shard in found.shards()] == [("a.parquet", ROWS)]
    assert list(map(told, read_all(found))) == expected()
    assert sample(read_all(found)[0]).images == (b"ok",)
    for rows in (1, 3, 4, 5, 50):
        assert list(map(told, read_units(found, rows))) == expected()
    (shard,) = found.shards()
    for start, stop in ((20, 23), (0, 2), (9, 11), (9, 10), (10, 10), (3, 17)):
        assert list(map(told, found.read(shard, start, stop))) == expected()[start:stop]


def test_a_remote_file_and_a_pickled_source(tmp_path: Path) -> None:
    for stream in (True, False):
        data = write(tmp_path / "a.arrow", caption_table(ROWS, "t"), stream=stream).read_bytes()
        fsspec.filesystem("memory").pipe_file("/arrow/a.arrow", data)
        found = source("memory://arrow")
        shards = found.shards()
        sent = pickle.loads(pickle.dumps(found))
        assert list(map(told, sent.read(shards[0], 6, 15))) == expected()[6:15]


def test_what_save_to_disk_and_the_cache_write(tmp_path: Path) -> None:
    """Its own JSON files and what it caches of a step are no shards."""
    for i in range(2):
        write(tmp_path / f"data-0000{i}-of-00002.arrow", caption_table(ROWS, f"{i}-"))
    write(tmp_path / "cache-0123456789abcdef.arrow", caption_table(ROWS, "cached"))
    write(tmp_path / "cache-0123456789abcdef_00000_of_00002.arrow", caption_table(ROWS, "cached"))
    for name in ("dataset_info.json", "state.json"):
        (tmp_path / name).write_text("{}")
    found = source(tmp_path)
    assert list(map(told, read_all(found))) == expected("0-") + expected("1-")
    account = found.account()
    assert (account["seen"], account["read"]) == (6, 2)
    assert {reason: one["count"] for reason, one in account["passed_over"].items()} == {".json": 2, "cache files": 2}
    assert found.fingerprint()["format"] == "arrow"


def test_the_library_s_own_files(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    kites = [f"kite {i}" for i in range(9)]
    made = datasets.Dataset.from_dict(
        {"image": [{"bytes": b"ok", "path": None}] * 9, "caption": kites, "id": list(range(9))}
    )
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(tmp_path, num_shards={"train": 2, "test": 1})
    found = source(tmp_path)
    assert [shard.rows for shard in found.shards()] == [9, 5, 4]
    assert [sample(row).scored_texts[0] for row in read_all(found)] == kites * 2


def test_feather(tmp_path: Path) -> None:
    pyarrow.feather.write_feather(caption_table(ROWS, "t"), tmp_path / "a.FEATHER", chunksize=5)
    assert list(map(told, read_all(source(tmp_path)))) == expected()


def test_dictionaries_of_a_stream(tmp_path: Path) -> None:
    table = caption_table(ROWS, "t")
    column = table["caption"].dictionary_encode()
    write(tmp_path / "a.arrow", table.set_column(table.schema.names.index("caption"), "caption", column))
    assert list(map(told, read_units(source(tmp_path), 5))) == expected()


def test_a_whole_run_and_merged_columns(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write(tmp_path / "data" / "a.arrow", caption_table(ROWS, "t"))
    summary = run(make_job(tmp_path / "data", tmp_path / "out", layout="merged"))
    assert (summary["rows"], summary["files"]["read"]) == (ROWS, 1)
    assert pq.read_table(tmp_path / "out" / "a.parquet")["caption"].to_pylist()[0] == "t kite № 0"


@pytest.mark.parametrize("data", [b"ARROW1\0\0", b"", b"not arrow at all", b"\xff\xff\xff\xff\x10\0\0\0"])
@pytest.mark.parametrize("url", ["", "/a.arrow"])
def test_damage_is_refused_by_the_format_s_own_name(tmp_path: Path, data: bytes, url: str) -> None:
    (tmp_path / "a.arrow").write_bytes(data)
    with pytest.raises(ConfigError, match=r"a\.arrow cannot be read as Arrow IPC: .*; repair it or leave it out"):
        source(f"{tmp_path}{url}").shards()


def test_a_cut_stream_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", caption_table(ROWS, "t"))
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ConfigError, match="cannot be read as Arrow IPC"):
        source(tmp_path).shards()


def test_a_row_that_is_not_text_fails_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", caption_table(ROWS, "t"))
    data = path.read_bytes()
    at = data.index("№ 7".encode())
    path.write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    rows = read_all(source(tmp_path))
    assert failure(rows[7]).code is FailureCode.ROW_UNREADABLE
    assert [told(row) for i, row in enumerate(rows) if i != 7] == [one for i, one in enumerate(expected()) if i != 7]


def test_a_file_that_shrank_ends_the_run(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", caption_table(ROWS, "t"))
    found = source(tmp_path)
    (shard,) = found.shards()
    found.columns  # noqa: B018, resolved before the file changes
    write(path, caption_table(9, "t"))
    with pytest.raises(RunError, match="ends 14 rows before row 23; it was changed during the run"):
        found.read(shard, 0, ROWS)


def test_shards_that_disagree_are_both_named(tmp_path: Path) -> None:
    write(tmp_path / "a.arrow", caption_table(2))
    write(tmp_path / "b.arrow", caption_table(2).drop_columns(["caption"]))
    write(tmp_path / "0.arrow", pa.table({"other": pa.array([], pa.int64())}))
    with pytest.raises(ConfigError, match=r"column 'caption' is missing in shard b\.arrow but is string in a\.arrow"):
        source(tmp_path).shards()
    (tmp_path / "b.arrow").unlink()
    assert len(read_all(source(tmp_path))) == 2
