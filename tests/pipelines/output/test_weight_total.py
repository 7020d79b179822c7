"""The weights that ``_SUCCESS`` adds up are those of the published rows with an image, however the run went."""

from __future__ import annotations

import json
import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.output.commit import PublishedShard, find_published
from pipelines.output.tally import Tally
from pipelines.output.weight_total import add_weights
from pipelines.run.job import prepare
from scorer.errors import RunError
from scorer.results import TokenScores
from scorer.table import build_table
from scorer.training import read_weights
from scorer.weighting.weight_total import ExactTotal, WeightTotal
from scorer.weights import Method
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import caption_table, make_job, run, write_dataset

BY_ROW = FakeEngine(by_batch=False)
GROUNDED = Method("grounded")


def recorded(output: Path) -> Any:
    return json.loads((output / "_SUCCESS").read_text()).get("weights")


def counted_by_hand(output: Path) -> WeightTotal:
    """Row by row, as a reader sees them."""
    rows = [row.weights.tolist() for row in read_weights(output) if row.weights is not None and not row.text_only]
    assert len(rows) > 5
    by_shard: dict[str, Fraction] = {}
    for row in read_weights(output):
        if row.weights is not None and not row.text_only:
            by_shard[row.shard] = by_shard.get(row.shard, Fraction()) + sum(map(Fraction, row.weights.tolist()))
    return WeightTotal(float(sum(Fraction(float(one)) for one in by_shard.values())), sum(map(len, rows)))


def test_the_summary_has_the_total_of_all_scored_rows(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output, method=GROUNDED))
    found = WeightTotal.from_dict(recorded(output))
    assert found == counted_by_hand(output)
    assert found.tokens == json.loads((output / "_SUCCESS").read_text())["tokens"]
    assert found.mean != 1


def test_units_and_their_order_change_nothing(dataset: Path, tmp_path: Path) -> None:
    run(make_job(dataset, tmp_path / "one", BY_ROW, method=GROUNDED))
    job = make_job(dataset, tmp_path / "other", BY_ROW, method=GROUNDED, rows_per_unit=3)
    prepared = prepare(job)
    for plan in reversed(prepared.plans):
        for unit in reversed(plan.units):
            prepared.work.run(unit, BY_ROW.encoder(), BY_ROW.scorer())
    run(job)
    assert json.dumps(recorded(tmp_path / "one")) == json.dumps(recorded(tmp_path / "other"))


def test_a_run_that_goes_on_with_more_shards_counts_all(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"a.parquet": 9})
    run(make_job(data, tmp_path / "out"))
    before = recorded(tmp_path / "out")
    write_dataset(data, {"b.parquet": 11})
    run(make_job(data, tmp_path / "out"))
    assert recorded(tmp_path / "out") != before
    assert WeightTotal.from_dict(recorded(tmp_path / "out")) == counted_by_hand(tmp_path / "out")


def test_rows_without_an_image_are_not_counted(tmp_path: Path) -> None:
    table = caption_table(12)
    images = [None if i % 2 else image for i, image in enumerate(table["image"].to_pylist())]
    table = table.set_column(1, "image", pa.array(images, table.schema.field("image").type))
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "x.parquet")
    run(make_job(tmp_path / "data", tmp_path / "out"))
    rows = [row for row in read_weights(tmp_path / "out") if row.weights is not None]
    scored = sum(len(row.weights) for row in rows if not row.text_only)  # type: ignore[arg-type]
    assert 0 < scored == WeightTotal.from_dict(recorded(tmp_path / "out")).tokens
    assert any(row.text_only for row in rows)


def markers(output: Path) -> list[Path]:
    return sorted((output / "_published").glob("*.json"))


def test_files_of_an_earlier_release_leave_the_summary_without_a_total(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    first, *_ = markers(output)
    document = json.loads(first.read_text())
    del document["weights"]
    first.write_text(json.dumps(document))
    (output / "_SUCCESS").unlink()
    run(make_job(dataset, output))
    assert recorded(output) is None


def test_a_marker_with_a_damaged_total_is_published_again(
    dataset: Path, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(make_job(dataset, output))
    expected = recorded(output)
    plan = next(plan for plan in prepare(make_job(dataset, output)).plans if plan.shard.rows)
    (path,) = (path for path in markers(output) if path.stem == plan.key)
    document = json.loads(path.read_text())
    document["weights"]["tokens"] = -1
    path.write_text(json.dumps(document))
    job = make_job(dataset, output)
    with caplog.at_level(logging.WARNING):
        assert find_published(job.store, plan) is None
    assert "the total of its weights is" in caplog.text
    (output / "_SUCCESS").unlink()
    run(job)
    assert recorded(output) == expected


def test_a_marker_keeps_its_total() -> None:
    marker = PublishedShard("x", 1, "0", Tally(), None, WeightTotal(0.1, 3))
    assert PublishedShard.from_bytes(marker.to_bytes()) == marker
    assert PublishedShard.from_bytes(PublishedShard("x", 1, "0", Tally()).to_bytes()).weights is None


def test_a_weight_that_is_not_finite_is_an_error_with_its_place() -> None:
    at, value = np.zeros(1, np.int32), np.array([np.nan], np.float32)
    scores = TokenScores("s", at, at, at + 1, at.astype(np.int16), "h", value, value, value)
    table = build_table([scores], 0, Method("prior"), {"fingerprint": {"contrast": "blank"}})
    with pytest.raises(RunError, match="unit u: 1 of 1 weights are NaN or infinite, though the rows were scored"):
        add_weights(ExactTotal(), table, "unit u")
