"""What is read of a run: all of a small one, a bounded and seeded part of a large one, never a failed row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.output import reader
from pipelines.output.reader import Window, choose_windows, read_rows, scored_batch, scored_batches
from pipelines.output.store import open_store
from pipelines.output.summary import read_summary
from scorer.errors import FailureCode, TableError
from scorer.results import Failure, TokenScores
from scorer.table import build_table
from scorer.types import Sample
from scorer.weights import Method
from tests.pipelines.report.runs import Entry, picture, scored, write_run


def entries(count: int, failing: tuple[int, ...] = ()) -> list[Entry]:
    rows: list[Entry] = []
    for i in range(count):
        sample = Sample.caption(f"s{i}", picture(), f"row {i} is red")
        failure = Failure(sample.sample_id, FailureCode.IMAGE_MISSING, "gone")
        rows.append((sample, failure if i in failing else scored(sample, {"red": 2.0})))
    return rows


def summary(*rows: int, tokens_per_row: int = 10) -> dict[str, Any]:
    shards = [{"name": f"s{i}", "rows": n, "ok": n} for i, n in enumerate(rows)]
    return {"shards": shards, "ok": sum(rows), "tokens": sum(rows) * tokens_per_row}


def test_a_small_run_is_read_whole_and_in_place(tmp_path: Path) -> None:
    write_run(tmp_path, {"a.parquet": entries(150, failing=(3, 70, 149)), "deep/b.parquet": entries(1)})
    rows = read_rows(str(tmp_path), choose_windows(read_summary(open_store(str(tmp_path))), 0))
    places = sorted((row.shard, row.row_index) for window in rows.values() for row in window)
    assert places == [("a.parquet", i) for i in range(149) if i not in (3, 70)] + [("deep/b.parquet", 0)]
    for window, read in rows.items():
        for row in read:
            assert window.start <= row.row_index < window.stop
            assert row.scores.sample_id == f"s{row.row_index}"
            expected = scored(Sample.caption("", picture(), f"row {row.row_index} is red"), {"red": 2.0})
            for name in ("token_starts", "token_ends", "token_turns", "logit_gap", "logprob_clean"):
                value = getattr(row.scores, name)
                np.testing.assert_array_equal(value, getattr(expected, name))
                assert value.dtype == getattr(expected, name).dtype
            assert row.scores.text_hash == expected.text_hash
            assert len(row.weights) == len(expected.token_ids)


def test_windows_are_seeded() -> None:
    document = summary(50_000, 50_000)
    assert choose_windows(document, 1) == choose_windows(document, 1)
    assert choose_windows(document, 1) != choose_windows(document, 2)


def test_windows_of_a_large_run_are_bounded_and_spread() -> None:
    windows = choose_windows(summary(1_000_000, 3_000_000, 700), 0)
    assert len(set(windows)) == len(windows)
    rows = {name: sum(w.stop - w.start for w in windows if w.shard == name) for name in ("s0", "s1", "s2")}
    assert sum(rows.values()) <= reader.MAX_ROWS + 64
    assert 2.7 < rows["s1"] / rows["s0"] < 3.3 and rows["s2"] > 0
    starts = np.array([w.start for w in windows if w.shard == "s1"])
    assert starts.max() > 2_500_000 and starts.min() < 500_000
    assert all(window.stop <= 700 for window in windows if window.shard == "s2")


def test_many_shards_and_long_texts_are_bounded() -> None:
    windows = choose_windows(summary(*[1000] * 500), 0)
    assert len({window.shard for window in windows}) == reader.MAX_SHARDS
    long = choose_windows(summary(100_000, tokens_per_row=1000), 0)
    assert sum(w.stop - w.start for w in long) * 1000 <= reader.MAX_TOKENS


def test_shards_without_scored_rows_are_not_opened() -> None:
    document = summary(100)
    document["shards"].append({"name": "bad", "rows": 100, "ok": 0})
    assert {window.shard for window in choose_windows(document, 0)} == {"s0"}
    assert choose_windows({"shards": [], "ok": 0, "tokens": 0}, 0) == []


def test_a_window_may_span_row_groups(tmp_path: Path) -> None:
    write_run(tmp_path, {"a.parquet": entries(120)})  # 50 rows a group
    window = Window("a.parquet", 40, 110)
    assert [row.row_index for row in read_rows(str(tmp_path), [window])[window]] == list(range(40, 110))


def test_a_scored_row_without_tokens_is_in_no_batch() -> None:
    """It is damage, for the check to tell; sums over a row's tokens need one at least."""
    scores = scored(Sample.caption("s", picture(), "red"), {})
    nothing = TokenScores.from_arrays("n", "0" * 32, {name: array[:0] for name, array in scores.arrays.items()})
    (rows,) = build_table([scores, nothing, scores], 0, Method(), {}).to_batches()
    batch = scored_batch("a.parquet", rows)
    assert (batch.row_index.tolist(), batch.lengths.tolist(), len(batch.text_hash)) == ([0, 2], [1, 1], 2)
    assert batch.first.tolist() == [0, 1] and len(batch.ends) == len(batch.gap) == 2


def test_a_file_without_a_required_column_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, {"a.parquet": entries(3)})
    pq.write_table(pq.read_table(tmp_path / "a.parquet").drop_columns(["logit_gap"]), tmp_path / "a.parquet")
    with pytest.raises(TableError, match=r"a\.parquet has no columns logit_gap; it has sample_id"):
        read_rows(str(tmp_path), [Window("a.parquet", 0, 3)])
    with pytest.raises(TableError, match=r"a\.parquet has no columns logit_gap; it has sample_id"):
        next(scored_batches(str(tmp_path), "a.parquet"))
