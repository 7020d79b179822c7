from __future__ import annotations

import gc
import pickle
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources import ReadRow
from pipelines.sources.columns import Columns
from pipelines.sources.images import ImageOptions
from pipelines.sources.parquet import ParquetSource
from scorer.errors import ConfigError, FailureCode, RunError
from scorer.results import Failure
from scorer.types import IMAGE, Sample
from tests.pipelines.helpers import IMAGE as STRUCT
from tests.pipelines.helpers import SHARDS, caption_table, write_dataset


def source(url: Path | str, **options: Any) -> ParquetSource:
    return ParquetSource(str(url), options.pop("columns", Columns()), prompt="Describe.", **options)


def read_all(src: ParquetSource) -> list[ReadRow]:
    return [row for shard in src.shards() for row in src.read(shard, 0, shard.rows)]


def sample(row: ReadRow) -> Sample:
    assert isinstance(row, Sample), row
    return row


def failure(row: ReadRow) -> Failure:
    assert isinstance(row, Failure), row
    return row


def one_row(path: Path, data: dict[str, pa.Array], **options: Any) -> ReadRow:
    pq.write_table(pa.table(data), path)
    (row,) = read_all(source(path, **options))
    return row


# --- which files ------------------------------------------------------------------------------------------------


def test_a_directory_is_read_recursively_and_hidden_files_are_not(dataset: Path) -> None:
    for name in ("_SUCCESS", ".hidden.parquet", "_part.parquet", "notes.txt", "_logs/x.parquet", ".git/x.parquet"):
        path = dataset / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"not a shard")
    shards = source(dataset).shards()
    assert {shard.name: shard.rows for shard in shards} == SHARDS
    assert [shard.name for shard in shards] == sorted(SHARDS)
    assert all(Path(shard.path) == dataset / shard.name for shard in shards)


def test_a_file_and_a_glob(dataset: Path) -> None:
    assert [shard.name for shard in source(dataset / "a.parquet").shards()] == ["a.parquet"]
    assert [shard.name for shard in source(dataset / "*" / "*.parquet").shards()] == ["sub/b.parquet"]
    assert [shard.name for shard in source(f"{dataset}/[ae]*.parquet").shards()] == ["a.parquet", "empty.parquet"]
    assert [shard.name for shard in source(f"file://{dataset}/a.parquet").shards()] == ["a.parquet"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent", "does not exist"), ("*.nothing", "does not exist"), ("void", "has no file that ends in .parquet")],
)
def test_nothing_to_read_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "void").mkdir()
    with pytest.raises(ConfigError, match=message):
        source(tmp_path / name).shards()


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(ConfigError, match=r"bad\.parquet cannot be read as Parquet"):
        source(tmp_path).shards()


def test_an_unknown_protocol_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nosuch"):
        source("nosuch://bucket/x").shards()


def test_shards_must_agree_in_the_columns_that_are_read(dataset: Path) -> None:
    table = caption_table(2)
    pq.write_table(table.append_column("extra", pa.array([1, 2])), dataset / "z.parquet")
    source(dataset).shards()  # a column that is not read may differ
    pq.write_table(table.set_column(2, "caption", pa.array([1, 2])), dataset / "z.parquet")
    with pytest.raises(ConfigError, match=r"'caption' is int64 in shard z\.parquet but is string in a\.parquet"):
        source(dataset).shards()
    pq.write_table(table.drop_columns(["caption"]), dataset / "z.parquet")
    with pytest.raises(ConfigError, match=r"'caption' is missing in shard z\.parquet"):
        source(dataset).shards()
    wide = table.set_column(2, "caption", table["caption"].cast(pa.large_string()))
    pq.write_table(wide, dataset / "z.parquet")  # read each by its own type
    last = read_all(source(dataset))[-2:]
    assert [sample(row).scored_texts[0] for row in last] == table["caption"].to_pylist()


def test_shards_without_arrow_s_schema_must_agree_too(tmp_path: Path) -> None:
    """As Spark and DuckDB write them: their footers' metadata are the same, and empty."""
    table = pa.table({"image": [b"ok"], "caption": ["a kite"]})
    for name, data in (("a", table), ("b", table), ("c", table.set_column(1, "caption", pa.array([1])))):
        pq.write_table(data, tmp_path / f"{name}.parquet", store_schema=False)
    with pytest.raises(ConfigError, match=r"'caption' is int64 in shard c\.parquet but is string in a\.parquet"):
        source(tmp_path).shards()


def test_footers_are_not_kept(tmp_path: Path) -> None:
    """Nor left to the collector of cycles, which comes too late: they are most of what planning would hold."""
    write_dataset(tmp_path, {f"{i:02}.parquet": 1 for i in range(40)})
    planned = source(tmp_path)
    gc.collect()
    gc.disable()
    try:
        before = sum(type(thing) is pq.FileMetaData for thing in gc.get_objects())  # other tests' sources keep a place
        planned.shards()
        kept = sum(type(thing) is pq.FileMetaData for thing in gc.get_objects()) - before
    finally:
        gc.enable()
    assert kept <= 1, "the first one's, that the others are compared with"


def test_the_etag_follows_the_content_and_not_the_clock(dataset: Path) -> None:
    before = source(dataset).shards()
    content = (dataset / "a.parquet").read_bytes()
    (dataset / "a.parquet").write_bytes(content)
    assert source(dataset).shards() == before
    (dataset / "a.parquet").write_bytes(content.replace(b"kite", b"kita"))
    after = source(dataset).shards()
    assert after[0].etag != before[0].etag
    assert after[1:] == before[1:]


def test_a_source_pickles_without_its_list_of_shards(dataset: Path) -> None:
    src = source(dataset)
    shard = src.shards()[0]
    copy = pickle.loads(pickle.dumps(src))
    assert copy.read(shard, 0, 3) == src.read(shard, 0, 3)
    assert copy.__getstate__()["_shards"] is None


# --- which rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "stop"), [(0, 25), (0, 1), (6, 8), (7, 14), (13, 22), (24, 25)])
def test_a_range_is_exactly_its_rows(dataset: Path, start: int, stop: int) -> None:
    src = source(dataset)
    shard = src.shards()[0]
    ids = [row.sample_id for row in src.read(shard, start, stop)]
    assert ids == [f"a.parquet{i}" for i in range(start, stop)]
    assert src.table(shard, start, stop).equals(pq.read_table(shard.path).slice(start, stop - start))


def test_only_the_row_groups_and_columns_that_are_needed_are_read(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[int], list[str]]] = []
    original = pq.ParquetFile.iter_batches

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((kwargs["row_groups"], kwargs["columns"]))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    src = source(dataset)
    src.read(src.shards()[0], 8, 14)  # row groups hold seven rows
    assert seen == [([1], ["image", "caption", "id"])]


def test_a_shard_that_shrank_is_an_error_and_not_fewer_rows(dataset: Path) -> None:
    src = source(dataset)
    shard = src.shards()[0]
    pq.write_table(caption_table(20), shard.path)
    with pytest.raises(RunError, match=r"a\.parquet ends 5 rows before row 25"):
        src.read(shard, 10, 25)
    Path(shard.path).write_bytes(b"")
    with pytest.raises(RunError, match=r"a\.parquet cannot be read"):
        src.read(shard, 0, 5)


def test_rows_without_an_id_column_are_named_by_shard_and_row(tmp_path: Path) -> None:
    pq.write_table(caption_table(3).drop_columns(["id"]), tmp_path / "x.parquet")
    assert [row.sample_id for row in read_all(source(tmp_path))] == ["x.parquet#0", "x.parquet#1", "x.parquet#2"]


def test_integer_and_null_ids(tmp_path: Path) -> None:
    table = caption_table(2).set_column(0, "id", pa.array([7, None]))
    pq.write_table(table, tmp_path / "x.parquet")
    assert [row.sample_id for row in read_all(source(tmp_path))] == ["7", "x.parquet#1"]


# --- one row ----------------------------------------------------------------------------------------------------


def test_a_caption_becomes_a_sample_with_the_prompt(tmp_path: Path) -> None:
    row = one_row(tmp_path / "x.parquet", {"image": pa.array([b"img"]), "caption": pa.array(["A kite."])})
    assert row == Sample.caption("x.parquet#0", b"img", "A kite.", "Describe.")


def test_a_prompt_column_and_its_nulls(tmp_path: Path) -> None:
    columns = {
        "image": pa.array([b"i", b"i"]),
        "caption": pa.array(["a", "b"]),
        "question": pa.array(["What?", None]),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    rows = read_all(source(tmp_path, columns=Columns(prompt="question", text="caption")))
    assert [sample(row).turns[0].text for row in rows] == ["What?", "Describe."]


@pytest.mark.parametrize("relative", ["pics/kite.jpg", "../elsewhere/kite.jpg"])
def test_paths_are_relative_to_the_shard(tmp_path: Path, relative: str) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    for column in (pa.array([relative]), pa.array([{"bytes": None, "path": relative}], STRUCT)):
        row = one_row(folder / "x.parquet", {"image": column, "caption": pa.array(["a"])})
        assert sample(row).images == (str(folder / relative),)


def test_bytes_win_over_the_path_beside_them(tmp_path: Path) -> None:
    image = pa.array([{"bytes": b"img", "path": "a.jpg"}], STRUCT)
    row = one_row(tmp_path / "x.parquet", {"image": image, "caption": pa.array(["a"])})
    assert sample(row).images == (b"img",)


@pytest.mark.parametrize(
    ("image", "caption", "code"),
    [
        ({"bytes": None, "path": "https://example.org/a.jpg"}, "a", FailureCode.IMAGE_URL_REFUSED),
        ({"bytes": None, "path": "s3://bucket/a.jpg"}, "a", FailureCode.IMAGE_MISSING),
        ({"bytes": b"img", "path": None}, None, FailureCode.TEXT_MISSING),
    ],
)
def test_a_row_that_lacks_something_fails_alone(
    tmp_path: Path, image: dict[str, Any] | None, caption: str | None, code: FailureCode
) -> None:
    columns = {"image": pa.array([image], STRUCT), "caption": pa.array([caption], pa.string())}
    assert failure(one_row(tmp_path / "x.parquet", columns)).code is code


def test_text_that_is_not_utf8_fails_alone(tmp_path: Path) -> None:
    invalid = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
    )
    columns = {"image": pa.array([b"img"]), "caption": invalid}
    assert failure(one_row(tmp_path / "x.parquet", columns)).code is FailureCode.TEXT_INVALID


@pytest.mark.parametrize("keys", [("role", "content", "user", "assistant"), ("from", "value", "human", "gpt")])
def test_conversations(tmp_path: Path, keys: tuple[str, str, str, str]) -> None:
    who, what, user, assistant = keys
    messages = [{who: user, what: "<image>\nWhat?"}, {who: assistant, what: "A kite."}]
    columns = {"image": pa.array([b"img"]), "conversations": pa.array([messages])}
    row = sample(one_row(tmp_path / "x.parquet", columns))
    assert row.images == (b"img",)
    assert row.turns[0].content[0] is IMAGE
    assert row.scored_texts == ("A kite.",)


def test_several_images_go_where_the_messages_say(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "<image>\n<image>\nWhich?"}, {"role": "assistant", "content": "Two."}]
    image = pa.array([[{"bytes": b"1", "path": None}, {"bytes": b"2", "path": None}]], pa.list_(STRUCT))
    row = sample(one_row(tmp_path / "x.parquet", {"images": image, "messages": pa.array([messages])}))
    assert row.images == (b"1", b"2")
    caption = sample(one_row(tmp_path / "y.parquet", {"images": image, "caption": pa.array(["a"])}))
    assert caption.images == (b"1", b"2")
    assert caption.turns[0].content == (IMAGE, IMAGE, "Describe.")


def test_a_broken_conversation_fails_alone(tmp_path: Path) -> None:
    messages = [{"role": "wizard", "content": "hm"}]
    row = one_row(tmp_path / "x.parquet", {"image": pa.array([b"i"]), "messages": pa.array([messages])})
    assert failure(row).code is FailureCode.CONVERSATION_INVALID


def test_the_contrast_image_comes_along(tmp_path: Path) -> None:
    columns = {"image": pa.array([b"1"]), "other": pa.array([b"2"]), "caption": pa.array(["a"])}
    asked = Columns(contrast_image="other")
    row = one_row(tmp_path / "x.parquet", columns, columns=asked, contrast_images=True)
    assert sample(row).contrast_images == (b"2",)


# --- remote shards ----------------------------------------------------------------------------------------------


@pytest.fixture
def remote(dataset: Path) -> str:
    """The dataset in fsspec's memory file system, which stands for any that is not local."""
    fs = fsspec.filesystem("memory")
    root = f"/{dataset.parent.name}"
    fs.put(str(dataset), root, recursive=True)
    return f"memory:/{root}"


def test_a_remote_directory_reads_like_a_local_one(remote: str, dataset: Path) -> None:
    here, there = source(dataset), source(remote)
    assert [(shard.name, shard.rows, shard.size) for shard in there.shards()] == [
        (shard.name, shard.rows, shard.size) for shard in here.shards()
    ]
    assert read_all(there) == read_all(here)
    shard = there.shards()[0]
    assert there.table(shard, 3, 9).equals(here.table(here.shards()[0], 3, 9))


def test_images_beside_a_remote_shard_are_read_within_the_limit(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    paths = ["pics/a.jpg", "pics/big.jpg", "pics/absent.jpg", "/etc/hostname", "file:///etc/hostname", "pics"]
    table = pa.table({"image": paths, "caption": ["x"] * len(paths)})
    pq.write_table(table, tmp_path / "x.parquet")
    root = f"/{tmp_path.name}"
    fs.put_file(str(tmp_path / "x.parquet"), f"{root}/x.parquet")
    fs.pipe_file(f"{root}/pics/a.jpg", b"picture")
    fs.pipe_file("/etc/hostname", b"a file of the same store that does not belong to the dataset")
    fs.pipe_file(f"{root}/pics/big.jpg", b"0" * 100)
    rows = read_all(source(f"memory:/{root}", images=ImageOptions(max_bytes=50)))
    assert sample(rows[0]).images == (b"picture",)
    assert [failure(row).code for row in rows[1:]] == [FailureCode.IMAGE_TOO_LARGE, *[FailureCode.IMAGE_MISSING] * 4]


def test_write_dataset_makes_what_the_tests_think(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    assert pq.ParquetFile(tmp_path / "a.parquet").metadata.num_row_groups == 4
