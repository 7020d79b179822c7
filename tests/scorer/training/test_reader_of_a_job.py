"""What a job publishes is what the reader reads: no file here is written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from scorer.errors import TableError
from scorer.results import TokenScores
from scorer.training import read_weights
from scorer.types import Sample
from scorer.weights import Method
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import ROWS, SHARDS, make_job, run, write_dataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data")


@pytest.mark.parametrize("layout", ["sidecar", "merged"])
@pytest.mark.parametrize("store", ["directory", "memory"])
def test_every_row_of_every_shard(data: Path, tmp_path: Path, layout: str, store: str) -> None:
    output = str(tmp_path / "out") if store == "directory" else f"memory://read-{tmp_path.name}-{layout}/out"
    summary = run(make_job(data, output, FakeEngine(by_batch=False), layout=layout, method=Method("prior")))
    published = read_weights(output)
    assert sorted(published.shards) == sorted(SHARDS)
    assert published.summary == summary
    failures = 0
    for name, rows in SHARDS.items():
        dataset = pq.read_table(data / name)
        read = list(published.shard(name))
        assert [row.row_index for row in read] == list(range(rows))
        for row, original in zip(read, dataset.to_pylist(), strict=True):
            assert row.sample_id == original["id"]
            if row.scores is None:
                failures += 1
                assert (row.weights, row.ok) == (None, False)
                continue
            row.check_text([original["caption"]])
            assert row.weights is not None
            np.testing.assert_array_equal(row.weights, Method("prior")(rescored(original["caption"])))
    assert failures == summary["failed"] == 4
    assert sum(1 for _ in published) == ROWS


def rescored(caption: str) -> TokenScores:
    engine = FakeEngine(by_batch=False)
    sample = engine.encoder().try_encode(Sample.caption("", b"ok", caption))
    (scores,) = engine.scorer().score_batches([sample], 8192)
    assert isinstance(scores, TokenScores)
    return scores


def test_a_job_that_did_not_finish(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(make_job(data, output))
    (output / "_SUCCESS").unlink()
    with pytest.raises(TableError, match="allow_unfinished=True"):
        read_weights(output)
    assert sum(1 for _ in read_weights(output, allow_unfinished=True)) == ROWS
