"""Rows are kept by their mean gap; what is dropped keeps its place and says why."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scorer.errors import ConfigError, TableError
from scorer.training import RowSelection, WeightAligner, WeightedText, WeightRow, WeightTable, read_weights
from scorer.training.export.__main__ import main as export
from scorer.weights import Method
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import make_job, run, write_dataset
from tests.scorer.training.mixed import write_mixed
from tests.scorer.training.trainers import BYTE_LEVEL


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed(tmp_path_factory.mktemp("rows"))


def gap_of(row: WeightRow) -> float:
    assert row.scores is not None
    return float(np.mean(row.scores.logprob_clean.astype(np.float64) - row.scores.logprob_contrast))


def test_rows_below_the_threshold_are_dropped_and_no_others(output: Path) -> None:
    published = read_weights(output, rows=RowSelection(min_gap=0.5))
    pairs = list(zip(read_weights(output), published, strict=True))
    for before, after in pairs:
        assert (before.shard, before.row_index, before.sample_id) == (after.shard, after.row_index, after.sample_id)
        if before.ok and not before.text_only and gap_of(before) < 0.5:
            assert after.dropped and not after.ok and after.scores is None and after.weights is None
            assert after.error == f"its mean gap is {gap_of(before):.6g} nats, and rows are kept from 0.5"
            assert f"dropped ({after.error})" in repr(after) and "not scored" not in repr(after)
        else:
            assert after.status == before.status and not after.dropped
    counted = published.statuses()
    assert counted["dropped"] == sum(after.dropped for _, after in pairs) > 3
    assert counted["ok"] > 3 and counted["text_only"] == 12 and sum(counted.values()) == 60


@pytest.mark.parametrize("share", [0.25, 0.7, 1.0])
def test_a_share_is_that_of_the_whole_dataset(output: Path, share: float) -> None:
    published = read_weights(output, rows=RowSelection(keep=share))
    scored = [gap_of(row) for row in read_weights(output) if row.ok and not row.text_only]
    kept = sum(row.status == "ok" for row in published)
    assert share <= kept / len(scored) <= share + 0.1
    assert published.min_gap == read_weights(output).gaps().rows.top(share)[0]
    part = read_weights(output / "b.parquet", rows=RowSelection(keep=share))
    assert part.shards == ("b.parquet",) and part.min_gap == published.min_gap
    assert f"rows with a mean gap from {published.min_gap:.6g} nats" in published.description


def test_a_table_finds_a_dropped_row_and_refuses_to_train_on_it(output: Path) -> None:
    table = WeightTable.open(output, rows=RowSelection(keep=0.3))
    dropped = next(row for row in table if row.dropped)
    found = table.find(dropped.sample_id)
    assert found.dropped and found.error == dropped.error
    words = rf"sample '{dropped.sample_id}'\) is dropped: its mean gap is .*; leave it out"
    with pytest.raises(TableError, match=words):
        found.check_text(["whatever"])
    with pytest.raises(TableError, match=words):
        found.to_record()
    for unscored in (None, 1.0):  # that weight is for rows that failed
        with pytest.raises(TableError, match=words):
            WeightAligner(BYTE_LEVEL, unscored=unscored)([[1]], [[1]], [WeightedText(found, ["whatever"])])


def test_a_selection_names_one_of_two(output: Path) -> None:
    for options, words in (
        ({}, "keep None and min_gap None; give one of them"),
        ({"keep": 0.5, "min_gap": 0.1}, "keep 0.5 and min_gap 0.1; give one of them"),
        ({"keep": 0.0}, r"share of rows to keep is 0.0; it must lie in \(0, 1\]"),
        ({"keep": 1.1}, r"share of rows to keep is 1.1; it must lie in \(0, 1\]"),
        ({"keep": math.nan}, r"share of rows to keep is nan"),
        ({"min_gap": math.inf}, "smallest mean gap of a row is inf; it must be a finite number of nats"),
    ):
        with pytest.raises(ConfigError, match=words):
            RowSelection(**options)


def test_a_share_needs_the_datasets_gaps(tmp_path: Path) -> None:
    output = write_mixed(tmp_path)
    summary = json.loads((output / "_SUCCESS").read_text())
    del summary["gaps"]
    (output / "_SUCCESS").write_text(json.dumps(summary))
    with pytest.raises(
        TableError,
        match=r"the share of rows to keep takes its threshold from the gaps of the whole dataset, but an earlier "
        r"release .*; or give the smallest mean gap of a row instead",
    ):
        read_weights(output, rows=RowSelection(keep=0.5))
    assert read_weights(output, rows=RowSelection(min_gap=0.5)).statuses()["dropped"] > 3
    (output / "_SUCCESS").unlink()
    unfinished = read_weights(output, rows=RowSelection(min_gap=0.5), allow_unfinished=True)
    assert unfinished.statuses()["dropped"] > 3


class LanguageModel(FakeEngine):
    """A model without images."""

    def fingerprint(self) -> dict[str, Any]:
        return {**FakeEngine.fingerprint(self), "contrast": "removed", "image_processor": None}


def test_rows_without_gaps_cannot_be_chosen(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"a.parquet": 9})
    run(make_job(data, tmp_path / "out", LanguageModel(), method=Method("prior")))
    with pytest.raises(TableError, match="has no gaps of the contrast 'removed'; it has none, as a model without"):
        read_weights(tmp_path / "out", rows=RowSelection(keep=0.5))
    with pytest.raises(TableError, match=r"a\.parquet is from a model without images, so its rows have no gaps"):
        list(read_weights(tmp_path / "out", rows=RowSelection(min_gap=0.5)))


def test_exporters_leave_dropped_rows_out_and_say_so(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, data = tmp_path / "file.jsonl", str(output.parent / "data")
    arguments = ["--to", "jsonl", "--weights", str(output), "--data", data, "--prompt", "?", "--output", str(target)]
    assert export([*arguments, "--keep-rows", "0.5"]) == 0
    said = capsys.readouterr().out
    published = read_weights(output, rows=RowSelection(keep=0.5))
    counted = published.statuses()
    failed = 60 - counted["ok"] - counted["text_only"] - counted["dropped"]
    assert f"{counted['dropped']} rows have a mean gap below {published.min_gap:.6g} nats: they are left out" in said
    assert f"{failed} of 60 rows were not scored" in said
    lines = [json.loads(line)["id"] for line in target.read_text().splitlines()]
    assert lines == [row.sample_id for row in published if row.ok]
    assert export([*arguments, "--min-row-gap", "0.5"]) == 0
    kept = read_weights(output, rows=RowSelection(min_gap=0.5))
    assert len(target.read_text().splitlines()) == sum(row.ok for row in kept)
    assert export([*arguments, "--keep-rows", "2"]) == 2
    assert "share of rows to keep is 2.0" in capsys.readouterr().err
