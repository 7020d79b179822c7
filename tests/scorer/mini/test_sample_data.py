"""The packaged sample dataset: made from its seed, with the bad rows it promises."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from scorer.mini import SAMPLE_PATH
from scorer.mini.sample_data import PLANTED, SCHEMA, sample_row, write_shards


@pytest.fixture(scope="module")
def packaged() -> list[dict[str, Any]]:
    return [row for path in sorted(SAMPLE_PATH.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def by_plant(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["planted"]: row for row in rows if row["planted"]}


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_it_is_small_and_shaped_as_documented() -> None:
    shards = sorted(SAMPLE_PATH.glob("*.parquet"))
    assert [path.name for path in shards] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert sum(path.stat().st_size for path in shards) <= 1.5 * 2**20
    assert all(pq.read_schema(path).equals(SCHEMA) for path in shards)
    assert [pq.read_metadata(path).num_rows for path in shards] == [120, 120]


def test_it_comes_out_the_same_again(packaged: list[dict[str, Any]], tmp_path: Path) -> None:
    made = [row for path in write_shards(tmp_path) for row in pq.read_table(path).to_pylist()]
    for old, new in zip(packaged, made, strict=True):
        # Encoders may differ between versions of Pillow; texts, labels and (nearly) pixels do not.
        assert {**old, "image": None} == {**new, "image": None}
        assert old["image"]["path"] == new["image"]["path"]
        if not new["planted"] or new["planted"].startswith("contradiction"):
            assert np.abs(pixels(old["image"]["bytes"]) - pixels(new["image"]["bytes"])).mean() < 1


def test_a_row_is_the_same_bytes_on_every_call() -> None:
    assert [sample_row(index) for index in (0, 1, 5)] == [sample_row(index) for index in (0, 1, 5)]


def test_truth_spans_are_the_captions_words(packaged: list[dict[str, Any]]) -> None:
    for row in packaged:
        data = row["caption"].encode()
        words = [data[span["start"] : span["end"]].decode() for span in row["truth"]]
        assert "".join(words) == "".join(row["caption"].split())


def test_some_captions_hold_one_error(packaged: list[dict[str, Any]]) -> None:
    false = [row for row in packaged if row["planted"] and row["planted"].startswith("contradiction: ")]
    assert 0.12 <= len(false) / len(packaged) <= 0.18
    for row in packaged:
        assert [span["label"] for span in row["truth"]].count("contradictory") == (row in false)


def test_bad_rows_are_bad_in_the_way_they_say(packaged: list[dict[str, Any]]) -> None:
    rows = by_plant(packaged)
    assert {name for name, _ in PLANTED.values()} <= set(rows)
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(rows["corrupt_jpeg"]["image"]["bytes"])).load()
    assert rows["missing_path"]["image"]["bytes"] is None
    assert not (SAMPLE_PATH / rows["missing_path"]["image"]["path"]).exists()
    assert rows["empty_caption"]["caption"] == ""
    assert "<image>" in rows["literal_image_token"]["caption"]
    bomb = rows["decompression_bomb"]["image"]["bytes"]
    assert len(bomb) < 25_000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        assert Image.open(io.BytesIO(bomb)).size == (13_000, 13_000)


def test_the_bomb_is_a_valid_png_at_a_harmless_size() -> None:
    from scorer.mini.sample_data import decompression_bomb

    image = Image.open(io.BytesIO(decompression_bomb(19)))
    assert (image.size, image.mode) == ((19, 19), "1")
    assert not np.asarray(image).any()


def test_ids_are_unique(packaged: list[dict[str, Any]]) -> None:
    assert len({row["id"] for row in packaged}) == 240
