"""Large row groups and large rows: decoded once for ascending units, in batches that fit, refused before Python."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources import Captions, parquet, row_groups
from pipelines.sources.columns import Columns
from pipelines.sources.images import ImageOptions
from pipelines.sources.parquet import ParquetSource
from pipelines.sources.row_groups import BATCH_ROWS, Place, batch_rows
from scorer.errors import FailureCode, RunError
from tests.pipelines.sources.helpers import failure, read_all, read_units, sample, source, texts

IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def rows_of(place: Place, start: int, stop: int) -> list[int]:
    return [value for batch in place.take(start, stop) for value in batch.column("row").to_pylist()]


class _Counted(pq.ParquetFile):  # type: ignore[misc]  # pyarrow is untyped
    """Counts the rows that are decoded; refuses batches of more than ``most`` rows, as Arrow does those over 2 GiB."""

    most = 10**9
    decoded = 0

    def iter_batches(self, batch_size: int, **options: Any) -> Any:
        for batch in super().iter_batches(batch_size, **options):
            if batch.num_rows > self.most:
                raise pa.ArrowNotImplementedError("Nested data conversions not implemented for chunked array outputs")
            self.decoded += batch.num_rows
            yield batch


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"row": range(1000)}), path, row_group_size=400)
    return path


def test_ascending_units_decode_each_row_once(numbered: Path) -> None:
    file = _Counted(numbered)
    place = Place(nullcontext(file), None)
    assert [row for at in range(0, 1000, 70) for row in rows_of(place, at, min(1000, at + 70))] == list(range(1000))
    assert file.decoded == 1000
    assert rows_of(place, 990, 2000) == list(range(990, 1000)), "a file that ends early gives fewer"


@pytest.mark.parametrize("units", [[(900, 905), (3, 9), (9, 500), (450, 460)], [(0, 1), (399, 401), (0, 1000), (5, 6)]])
def test_any_order_gives_the_same_rows(numbered: Path, units: list[tuple[int, int]]) -> None:
    place = Place(nullcontext(_Counted(numbered)), ["row"])
    for start, stop in units:
        assert rows_of(place, start, stop) == list(range(start, stop))


@pytest.mark.parametrize("most", [1, 5, 33])
def test_a_batch_that_arrow_refuses_is_halved(numbered: Path, most: int) -> None:
    file = _Counted(numbered)
    file.most = most
    place = Place(nullcontext(file), None)
    assert [row for at in range(0, 1000, 90) for row in rows_of(place, at, min(1000, at + 90))] == list(range(1000))


class _Nested(pq.ParquetFile):  # type: ignore[misc]  # pyarrow is untyped
    """Refuses a batch whose nested images have more than 4,000 bytes, unless they are large binaries."""

    opened = 0
    wide = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _Nested.opened += 1
        _Nested.wide += "binary_type" in options

    def iter_batches(self, batch_size: int, **options: Any) -> Any:
        for batch in super().iter_batches(batch_size, **options):
            kind = batch.schema.field("images").type.value_type.field("bytes").type
            data = batch.column("images").flatten().field("bytes")
            if not pa.types.is_large_binary(kind) and sum(len(one.as_py()) for one in data) > 4000:
                raise pa.ArrowNotImplementedError("Nested data conversions not implemented for chunked array outputs")
            yield batch


@pytest.fixture
def with_a_large_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten rows of one image in row groups of five; the third has nine. No row may have 5,000 bytes."""
    monkeypatch.setattr(parquet.pq, "ParquetFile", _Nested)
    monkeypatch.setattr(_Nested, "opened", 0)
    monkeypatch.setattr(_Nested, "wide", 0)
    monkeypatch.setattr(parquet, "_MAX_CELL", 5000)
    images = [[{"bytes": bytes([i]) * 1000, "path": None}] * (9 if i == 2 else 1) for i in range(10)]
    columns = {"images": pa.array(images, IMAGES), "caption": [f"A kite {i}." for i in range(10)]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=5, store_schema=False)
    return tmp_path


@pytest.mark.parametrize("rows", [1, 3, 10])
def test_a_nested_row_that_arrow_refuses_alone_is_its_own_failure(with_a_large_row: Path, rows: int) -> None:
    found = read_units(source(with_a_large_row, images=ImageOptions(max_bytes=2000)), rows)
    assert failure(found[2]).code is FailureCode.ROW_UNREADABLE
    assert "column 'images' has 9," in failure(found[2]).message
    assert "in one row, more than 5,000; split the row" in failure(found[2]).message
    others = [i for i in range(10) if i != 2]
    assert [sample(found[i]).images for i in others] == [(bytes([i]) * 1000,) for i in others]
    assert texts([found[i] for i in others]) == [f"A kite {i}." for i in others]
    assert _Nested.wide == 1, "only the row group with that row is read anew"


def test_without_the_option_such_a_row_ends_the_reading(
    with_a_large_row: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_LARGE", {})
    with pytest.raises(RunError, match="Nested data conversions"):
        read_all(source(with_a_large_row))


def test_a_table_keeps_the_file_s_types(with_a_large_row: Path) -> None:
    src = source(with_a_large_row)
    (shard,) = src.shards()
    whole = src.table(shard, 0, 10)
    assert whole.schema == src.schema(shard)
    assert whole.equals(pq.read_table(with_a_large_row / "a.parquet"))
    assert _Nested.wide == 1

    too_much = pa.record_batch({"caption": pa.array([b"\xff"], pa.large_binary())})  # a cast that Arrow refuses
    with pytest.raises(RunError, match=r"a\.parquet has more than 2 GiB .* split the row, or use --layout sidecar"):
        parquet._as_stored(too_much, pa.schema([("caption", pa.string())]), shard)


def test_a_row_that_arrow_refuses_alone_ends_the_reading(numbered: Path) -> None:
    file = _Counted(numbered)
    file.most = 0
    with pytest.raises(pa.ArrowNotImplementedError):
        rows_of(Place(nullcontext(file), None), 0, 1)


def group_of(columns: dict[str, pa.Array], path: Path, **options: Any) -> Any:
    pq.write_table(pa.table(columns), path, **options)
    return pq.read_metadata(path).row_group(0)


def test_batches_are_as_large_as_the_footer_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "BATCH_BYTES", 2**20)
    path = tmp_path / "a.parquet"
    small = {"caption": pa.array([f"kite {i}" for i in range(200)])}
    assert batch_rows(group_of(small, path), None) == BATCH_ROWS
    large = {"caption": pa.array(["x" * 100_000] * 200)}
    for options in ({}, {"use_dictionary": False}, {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"}):
        group = group_of({**small, "large": large["caption"]}, path, **options)
        assert 5 <= batch_rows(group, None) <= 11, options
        assert batch_rows(group, ["caption"]) == BATCH_ROWS, "columns that are not read cost nothing"
    huge = group_of({"caption": pa.array(["x" * 2**21] * 9)}, path)
    assert batch_rows(huge, None) == 1


def test_a_nested_column_of_many_bytes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """72 images of 39 MB are more than Arrow puts into one nested batch; here they are small and so is the limit."""
    monkeypatch.setattr(_Counted, "most", 6)
    monkeypatch.setattr(parquet.pq, "ParquetFile", _Counted)
    images = [[{"bytes": bytes([i]) * 1000, "path": None}] for i in range(72)]
    columns = {"images": pa.array(images, IMAGES), "caption": [f"A kite {i}." for i in range(72)]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    rows = read_units(source(tmp_path), 20)
    assert [sample(row).images for row in rows] == [(bytes([i]) * 1000,) for i in range(72)]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_a_text_of_megabytes_from_a_file_of_kilobytes_makes_no_python_object(tmp_path: Path, kind: pa.DataType) -> None:
    captions = pa.array(["A kite.", *["x" * 20_000_000] * 3, "A boat."], pa.string()).cast(kind)
    pq.write_table(pa.table({"image": [b"ok"] * 5, "caption": captions}), tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 20_000
    src = source(tmp_path)
    src.shards()
    tracemalloc.start()
    rows = read_all(src)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000
    assert texts([rows[0], rows[4]]) == ["A kite.", "A boat."]
    for row in rows[1:4]:
        assert failure(row).code is FailureCode.TEXT_TOO_LONG
        assert "20,000,000 bytes, more than max_text_bytes=1048576" in failure(row).message


@pytest.mark.parametrize("kind", [pa.binary(), pa.struct([("bytes", pa.binary()), ("path", pa.string())])])
def test_an_image_over_its_limit_makes_no_python_object(tmp_path: Path, kind: pa.DataType) -> None:
    data = [b"ok", b"x" * 9_000_000, None, b"ok"]
    cells = data if kind == pa.binary() else [value and {"bytes": value, "path": None} for value in data]
    pq.write_table(pa.table({"image": pa.array(cells, kind), "caption": ["A kite."] * 4}), tmp_path / "a.parquet")
    src = source(tmp_path, images=ImageOptions(max_bytes=8_000_000))
    src.shards()
    tracemalloc.start()
    rows = read_all(src)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000
    assert sample(rows[0]).images == sample(rows[3]).images == (b"ok",)
    assert failure(rows[1]).code is FailureCode.IMAGE_TOO_LARGE
    assert sample(rows[2]).text_only


def test_a_list_that_is_too_large_fails_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_MAX_CELL", 1000)
    captions = [["A kite.", "A boat."], ["x" * 60] * 30]
    pq.write_table(pa.table({"image": [b"ok"] * 2, "caption": captions}), tmp_path / "a.parquet")
    rows = read_all(source(tmp_path, max_text_bytes=100))
    assert isinstance(rows[0], Captions)
    assert failure(rows[1]).code is FailureCode.ROW_UNREADABLE


def dataset(folder: Path) -> ParquetSource:
    columns = {"image": [b"ok"] * 300, "caption": [f"kite {i}" for i in range(300)]}
    pq.write_table(pa.table(columns), folder / "a.parquet")
    found = source(folder, columns=Columns())
    assert isinstance(found, ParquetSource)
    return found


def test_a_source_keeps_its_place_and_pickles_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src = dataset(tmp_path)
    (shard,) = src.shards()
    opened = []
    original: Callable[..., Any] = parquet._open

    def counted(*args: Any) -> Any:
        opened.append(args)
        return original(*args)

    monkeypatch.setattr(parquet, "_open", counted)
    found = [row for at in range(0, 300, 50) for row in src.read(shard, at, at + 50)]
    assert texts(found) == [f"kite {i}" for i in range(300)]
    assert len(opened) == 1
    other = pickle.loads(pickle.dumps(src))
    assert texts(other.read(shard, 10, 12)) == ["kite 10", "kite 11"]
    assert src.table(shard, 250, 252)["caption"].to_pylist() == ["kite 250", "kite 251"]


def test_an_error_gives_up_the_place(tmp_path: Path) -> None:
    src = dataset(tmp_path)
    (shard,) = src.shards()
    with pytest.raises(RunError, match="ends 5 rows before row 305"):
        src.read(shard, 200, 305)
    assert texts(src.read(shard, 299, 300)) == ["kite 299"]


def test_limits_follow_a_shard_s_own_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"ok"], "caption": ["A kite."]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": [b"ok"], "text": ["A boat on the sea."]}), tmp_path / "b.parquet")
    rows = read_all(source(tmp_path, images=ImageOptions(max_bytes=10), max_text_bytes=1000))
    assert texts(rows) == ["A kite.", "A boat on the sea."]
