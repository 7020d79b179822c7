"""Rows looked up by place and by id: what a job published, from a folder and from a URL."""

from __future__ import annotations

import pickle
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from scorer.errors import TableError
from scorer.table import SCORE_FIELDS
from scorer.training import WeightRow, WeightTable, read_weights
from scorer.types import Float32Array
from scorer.weights import Method, RawScores
from tests.scorer.training.conftest import BROKEN, SHARDS, Scored
from tests.scorer.training.test_reader import publish
from tests.scorer.training.test_reader import scored as one_scored


def same(a: WeightRow, b: WeightRow) -> bool:
    if a.scores is None or b.scores is None or a.weights is None or b.weights is None:
        return (a.sample_id, a.status, a.error, a.scores) == (b.sample_id, b.status, b.error, b.scores)
    arrays = [(getattr(a.scores, field.name), getattr(b.scores, field.name)) for field in SCORE_FIELDS]
    names = [(row.shard, row.row_index, row.sample_id, row.status) for row in (a, b)]
    equal = all(np.array_equal(one, other) for one, other in [*arrays, (a.weights, b.weights)])
    return equal and names[0] == names[1] and a.scores.text_hash == b.scores.text_hash


@pytest.mark.parametrize("layout", ["weights", "merged"])
@pytest.mark.parametrize("url", [False, True])
def test_every_row_by_place_and_by_id(scored: Scored, layout: str, url: bool) -> None:
    folder: Path = getattr(scored, layout)
    path = f"memory://weight-table-{layout}" if url else str(folder)
    if url:
        fsspec.filesystem("memory").put(str(folder), f"/weight-table-{layout}", recursive=True)
    table = WeightTable.open(path, keep_shards=1)
    assert len(table) == sum(count for _, count in SHARDS.values()) == len(list(table))
    assert table.shards == tuple(SHARDS)
    for shard in reversed(table.shards):
        dataset = pq.read_table(scored.data / shard).to_pylist()
        for index in reversed(range(len(dataset))):
            row = table.row(shard, index)
            assert same(row, table.find(dataset[index]["id"]))
            assert row.ok == (dataset[index]["id"] != BROKEN)
            if row.ok:
                row.check_text([dataset[index]["caption"]])
    assert all(same(row, table.row(row.shard, row.row_index)) for row in read_weights(folder))
    if url:
        fsspec.filesystem("memory").rm(f"/weight-table-{layout}", recursive=True)


def test_shards_are_read_when_they_are_needed(tmp_path: Path) -> None:
    output = publish(tmp_path / "out")
    table = WeightTable.open(output)
    (output / "train-1.parquet").unlink()
    assert table.row("more/train-0.parquet", 0).sample_id == "d"
    (output / "more" / "train-0.parquet").unlink()
    assert table.row("more/train-0.parquet", 0).sample_id == "d"  # kept
    with pytest.raises(TableError, match=r"train-1\.parquet is gone"):
        table.row("train-1.parquet", 0)


def test_only_so_many_shards_are_kept(tmp_path: Path) -> None:
    output = publish(tmp_path / "out")
    table = WeightTable.open(output, keep_shards=1)
    for shard in table.shards:
        table.row(shard, 0)
    (output / "train-1.parquet").unlink()
    table.row("more/train-0.parquet", 0)
    with pytest.raises(TableError, match="is gone"):
        table.row("train-1.parquet", 0)
    with pytest.raises(TableError, match="keep_shards is 0; give 1 or more"):
        WeightTable.open(output, keep_shards=0)


def test_rows_that_are_not_there(tmp_path: Path) -> None:
    table = WeightTable.open(publish(tmp_path / "out"))
    for index in (-1, 3):
        with pytest.raises(TableError, match=rf"train-1\.parquet has 3 rows; there is no row {index}"):
            table.row("train-1.parquet", index)
    with pytest.raises(TableError, match=r"has no shard 'x'; it has train-1\.parquet"):
        table.row("x", 0)
    with pytest.raises(TableError, match=r"has no row with the id 'z' among its 4; .*row\(shard, index\)"):
        table.find("z")


def test_an_id_of_several_rows_is_refused(tmp_path: Path) -> None:
    twice = {"a.parquet": [one_scored("x", [1]), one_scored("y", [2])], "b.parquet": [one_scored("x", [3])]}
    table = WeightTable.open(publish(tmp_path / "out", twice))
    assert table.find("y").row_index == 1
    with pytest.raises(TableError, match="several rows with the id 'x'"):
        table.find("x")


def double(scores: RawScores) -> Float32Array:
    return scores.logprob_clean * -2


@pytest.mark.parametrize("method", [None, "cal", "prior", "vig-row", Method("cal", {"window": 1, "high": 3}), double])
def test_weights_are_derived_at_read_time(scored: Scored, method: object) -> None:
    row = scored.table(method=method).find("scene-00001")
    assert row.scores is not None
    derive = Method(method) if isinstance(method, str) else method or Method()
    assert_array_equal(row.weights, derive(row.scores))  # type: ignore[operator]  # a method or a function
    assert len(np.unique(row.weights)) > 1


def test_a_row_is_the_readers_own(scored: Scored) -> None:
    table = scored.table()
    row = table.find("scene-00001")
    assert row.weights is not None
    before = row.weights.copy()
    row.weights[:] = -1  # writeable, and nobody else's
    assert_array_equal(table.find("scene-00001").weights, before)


def test_it_travels_to_workers_without_what_it_has_read(scored: Scored) -> None:
    table = scored.table(keep_shards=2)
    table.find("scene-00001")
    data = pickle.dumps(table)
    assert len(data) < 4000
    copy = pickle.loads(data)
    assert same(copy.find("scene-00001"), table.find("scene-00001"))
    assert copy.keep_shards == 2


def test_an_unfinished_output(tmp_path: Path) -> None:
    output = publish(tmp_path / "out", finished=False)
    with pytest.raises(TableError, match="does not belong to a finished run"):
        WeightTable.open(output)
    table = WeightTable.open(output, allow_unfinished=True)
    assert len(table) == 4
    assert table.find("c").row_index == 2
