"""The gaps that ``_SUCCESS`` records are those of the published rows, however the run went."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.output import gaps
from pipelines.output.commit import PublishedShard, find_published
from pipelines.output.tally import Tally
from pipelines.run.job import prepare
from scorer.errors import RunError
from scorer.results import TokenScores
from scorer.table import build_table
from scorer.training import read_weights
from scorer.weighting.dataset_gaps import DatasetGaps, Histogram
from scorer.weights import Method
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import caption_table, make_job, run, write_dataset

BY_ROW = FakeEngine(by_batch=False)


def recorded(output: Path) -> Any:
    return json.loads((output / "_SUCCESS").read_text()).get("gaps")


def counted_by_hand(output: Path) -> DatasetGaps:
    """Row by row, as a reader sees them."""
    tokens: list[float] = []
    means: list[float] = []
    for row in read_weights(output):
        if row.ok and not row.text_only:
            assert row.scores is not None
            own = [
                float(a) - float(b) for a, b in zip(row.scores.logprob_clean, row.scores.logprob_contrast, strict=True)
            ]
            tokens += own
            means.append(float(np.mean(own)))
    assert len(means) > 5
    return DatasetGaps(Histogram.of(np.array(tokens)), Histogram.of(np.array(means)))


def test_the_summary_has_the_gaps_of_all_scored_rows(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    assert DatasetGaps.from_dict(recorded(output)["blank"]) == counted_by_hand(output)


def test_units_and_their_order_change_nothing(dataset: Path, tmp_path: Path) -> None:
    run(make_job(dataset, tmp_path / "one", BY_ROW))
    job = make_job(dataset, tmp_path / "other", BY_ROW, rows_per_unit=3)
    prepared = prepare(job)
    for plan in reversed(prepared.plans):
        for unit in reversed(plan.units):
            prepared.work.run(unit, BY_ROW.encoder(), BY_ROW.scorer())
    run(job)
    bytes_of = [json.dumps(recorded(tmp_path / name)) for name in ("one", "other")]
    assert bytes_of[0] == bytes_of[1]


def test_a_run_that_goes_on_with_more_shards_counts_all(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"a.parquet": 9})
    run(make_job(data, tmp_path / "out"))
    before = recorded(tmp_path / "out")
    write_dataset(data, {"b.parquet": 11})
    run(make_job(data, tmp_path / "out"))
    assert recorded(tmp_path / "out") != before
    assert DatasetGaps.from_dict(recorded(tmp_path / "out")["blank"]) == counted_by_hand(tmp_path / "out")


def test_rows_without_an_image_are_not_counted(tmp_path: Path) -> None:
    table = caption_table(12)
    images = [None if i % 2 else image for i, image in enumerate(table["image"].to_pylist())]
    table = table.set_column(1, "image", pa.array(images, table.schema.field("image").type))
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "x.parquet")
    run(make_job(tmp_path / "data", tmp_path / "out"))
    assert any(row.text_only for row in read_weights(tmp_path / "out"))
    assert DatasetGaps.from_dict(recorded(tmp_path / "out")["blank"]).rows.total == 6


def markers(output: Path) -> list[Path]:
    return sorted((output / "_published").glob("*.json"))


def test_files_of_an_earlier_release_leave_the_summary_without_gaps(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    first, *_ = markers(output)
    document = json.loads(first.read_text())
    del document["gaps"]
    first.write_text(json.dumps(document))
    (output / "_SUCCESS").unlink()
    run(make_job(dataset, output))
    assert recorded(output) is None


def test_a_marker_with_damaged_gaps_is_published_again(
    dataset: Path, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(make_job(dataset, output))
    expected = recorded(output)
    plan = next(plan for plan in prepare(make_job(dataset, output)).plans if plan.shard.rows)
    (path,) = (path for path in markers(output) if path.stem == plan.key)
    document = json.loads(path.read_text())
    document["gaps"]["blank"]["rows"]["counts"][0] = 0
    path.write_text(json.dumps(document))
    job = make_job(dataset, output)
    with caplog.at_level(logging.WARNING):
        assert find_published(job.store, plan) is None
    assert "a histogram's" in caplog.text
    (output / "_SUCCESS").unlink()
    run(job)
    assert recorded(output) == expected


def test_a_marker_keeps_its_gaps() -> None:
    found = {"blank": DatasetGaps.of(np.array([1.0, -2.0]), np.array([0, 2]))}
    marker = PublishedShard("x", 1, "0", Tally(), found)
    assert PublishedShard.from_bytes(marker.to_bytes()) == marker
    assert PublishedShard.from_bytes(PublishedShard("x", 1, "0", Tally()).to_bytes()).gaps is None


def one_row(logprob: float, fingerprint: dict[str, Any]) -> pa.Table:
    at = np.zeros(1, np.int32)
    value = np.array([logprob], np.float32)
    scores = TokenScores("s", at, at, at + 1, at.astype(np.int16), "h", value, value, np.float32([-1.0]))
    return build_table([scores], 0, Method("prior"), {"fingerprint": fingerprint})


def test_a_gap_that_is_not_finite_is_an_error_with_its_place() -> None:
    table = one_row(float("nan"), {"contrast": "blank"})
    with pytest.raises(RunError, match="the gaps of unit u with the contrast blank: 1 of 1 values are NaN or infinite"):
        gaps.gaps_of(table, "unit u")


def test_a_model_without_images_has_no_gaps() -> None:
    assert gaps.gaps_of(one_row(float("nan"), {"contrast": "removed", "image_processor": None}), "unit u") == {}
