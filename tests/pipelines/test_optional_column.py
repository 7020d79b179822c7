"""A column that only some runs have: written, joined over captions, checked, told, read; and absent without a fuss."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.cli.inspect import main as inspect
from pipelines.output.reader import Window, read_rows, scored_batches
from pipelines.output.store import open_store
from pipelines.report.page import write_report
from scorer.errors import ConfigError, OtherRunError, TableError
from scorer.results import TokenScores
from scorer.table import SCHEMA
from scorer.training import WeightTable, read_weights
from scorer.types import Sample
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import make_job, run
from tests.pipelines.outputs import problems, rewrite
from tests.pipelines.outputs import with_value as cell
from tests.toy_columns import FLAG, NAMES, TOY, register

CAPTIONS = [["a red kite", None, "two boats"], ["one"], None, ["", "the last"]]
FILE = "x.parquet"
ENGINE = FakeEngine(optional=NAMES)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    table = pa.table({"image": [b"i"] * len(CAPTIONS), "captions": pa.array(CAPTIONS, pa.list_(pa.string()))})
    pq.write_table(table, tmp_path / "data" / FILE)
    return tmp_path / "data"


def alone(text: str) -> TokenScores:
    encoded = ENGINE.encoder().try_encode(Sample.caption("", b"i", text))
    (result,) = ENGINE.scorer().score_batches([encoded], 8192)
    assert isinstance(result, TokenScores)
    return result


@pytest.mark.parametrize("layout", ["sidecar", "merged"])
def test_it_is_written_joined_and_read(data: Path, tmp_path: Path, layout: str) -> None:
    out = tmp_path / "out"
    run(make_job(data, out, ENGINE, layout=layout))
    assert set(NAMES) <= set(pq.read_schema(out / FILE).names)
    assert problems(out) == problems(out, quick=True) == []
    (window,) = windows = [Window(FILE, 0, len(CAPTIONS))]
    table = WeightTable.open(out)
    seen = {row.row_index: row for row in read_rows(str(out), windows)[window]}
    assert len(seen) == 3
    for row in read_weights(out):
        assert row.ok == (row.row_index in seen)
        if row.scores is None:
            continue
        for k, text in enumerate(CAPTIONS[row.row_index] or []):
            own = row.scores.token_turns == k
            for name in NAMES:
                expected = alone(text).optional[name] if text else []
                for read in (row, seen[row.row_index], table.row(FILE, row.row_index)):
                    assert read.scores is not None
                    np.testing.assert_array_equal(read.scores.optional[name][own], expected)
                    assert read.scores.optional[name].dtype == {"toy": np.float32, "is_toy": np.bool_}[name]
    assert [len(batch.lengths) for batch in scored_batches(str(out), FILE)] == [3]


def test_it_is_told(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = make_job(data, tmp_path / "out", ENGINE)
    run(job)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| `toy` | {TOY.meaning} |" in card and f"| `is_toy` | {FLAG.meaning} |" in card
    write_report(job.store.root, job.source, str(tmp_path / "report.html"))
    assert inspect([str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["fingerprint"]["columns"] == list(NAMES)


DAMAGED: dict[str, tuple[Any, str]] = {
    "not finite": (cell("toy", 1, [math.nan]), "row 1 has a toy that is not finite"),
    "one less": (cell("toy", 0, lambda v: v[:-1]), "row 0 has a different number of toy than of token_ids"),
    "null": (cell("is_toy", 1, None), "row 1 did not fail but is_toy is null"),
    "a null inside": (cell("is_toy", 1, [None]), "row 1 has a null inside is_toy"),
    "of a failed row": (cell("toy", 2, [1.0]), "row 2 failed but toy is not null"),
    "absent": (lambda table: table.drop_columns(["toy"]), "it lacks columns toy"),
    "another type": (
        lambda table: table.set_column(
            table.schema.get_field_index("toy"), "toy", table["toy"].cast(pa.list_(pa.float64()))
        ),
        "its column toy is list<",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_it_is_checked(data: Path, tmp_path: Path, damage: str) -> None:
    run(make_job(data, tmp_path / "out", ENGINE))
    change, expected = DAMAGED[damage]
    rewrite(tmp_path / "out", FILE, change)
    assert any(expected in problem.message for problem in problems(tmp_path / "out")), problems(tmp_path / "out")


@pytest.mark.parametrize("layout", ["sidecar", "merged"])
def test_an_output_without_it_reads_everywhere(data: Path, tmp_path: Path, layout: str) -> None:
    out = tmp_path / "out"
    job = make_job(data, out, FakeEngine(), layout=layout)
    run(job)
    assert [name for name in pq.read_schema(out / FILE).names if name in SCHEMA.names] == SCHEMA.names
    assert problems(out) == problems(out, quick=True) == []
    assert "toy" not in (out / "README.md").read_text()
    write_report(job.store.root, job.source, str(tmp_path / "report.html"))
    assert inspect([str(out)]) == inspect([str(out), "--sample", "2"]) == 0
    table = WeightTable.open(out)
    windows = [Window(FILE, 0, len(CAPTIONS))]
    rows = [*read_weights(out), *(table.row(FILE, i) for i in range(4)), *read_rows(str(out), windows)[windows[0]]]
    assert sum(row.ok for row in rows) == 9
    assert all(row.scores.optional == {} for row in rows if row.scores is not None)


@pytest.mark.parametrize("column", ["logit_gap", "token_weights", "status"])
def test_an_output_without_a_required_column_is_refused(data: Path, tmp_path: Path, column: str) -> None:
    """Negative control."""
    out = tmp_path / "out"
    job = make_job(data, out, ENGINE)
    run(job)
    rewrite(out, FILE, lambda table: table.drop_columns([column]))
    assert any(f"it lacks columns {column}" in problem.message for problem in problems(out))
    message = rf"x\.parquet has no columns {column}; it has"
    with pytest.raises(TableError, match=message):
        list(read_weights(out))
    with pytest.raises(TableError, match=message):
        WeightTable.open(out).row(FILE, 0)
    with pytest.raises(TableError, match=message):
        read_rows(str(out), [Window(FILE, 0, 4)])
    with pytest.raises(TableError, match=message):
        list(scored_batches(str(out), FILE))
    with pytest.raises(TableError, match=message):
        write_report(job.store.root, job.source, str(tmp_path / "report.html"))


def test_a_run_does_not_go_on_with_other_columns(data: Path, tmp_path: Path) -> None:
    run(make_job(data, tmp_path / "out"))
    with pytest.raises(OtherRunError, match=r"fingerprint\.columns"):
        run(make_job(data, tmp_path / "out", ENGINE))


def test_a_dataset_with_a_column_of_that_name_is_not_merged(data: Path, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(data / FILE).append_column("toy", pa.array([1] * 4)), data / FILE)
    with pytest.raises(ConfigError, match=r"already has columns named toy; rename"):
        run(make_job(data, tmp_path / "out", layout="merged"))
    run(make_job(data, tmp_path / "sidecar"))
    assert open_store(str(tmp_path / "sidecar")).sizes()[FILE]
