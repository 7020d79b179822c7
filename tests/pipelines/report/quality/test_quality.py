"""The quality scan against naive forms of it, its bounded memory, and the file that it exports."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.output.reader import ScoredBatch
from pipelines.report.quality import duplicates, figures
from pipelines.report.quality.duplicates import Duplicates, Repeat
from pipelines.report.quality.export import SCHEMA, export
from pipelines.report.quality.figures import STEP, Bins, Counts
from pipelines.report.quality.scan import FACTOR_TWO, LITTLE, Findings, Scan, scan
from scorer.errors import ConfigError, FailureCode
from scorer.results import Failure
from scorer.table import text_hash
from scorer.types import Sample
from tests.pipelines.helpers import make_job, run
from tests.pipelines.report.runs import Entry, picture, scored, write_run

GAPS = st.lists(st.one_of(st.floats(-3, 3, width=32), st.just(math.nan)), min_size=1, max_size=5)
ROWS = st.lists(st.tuples(GAPS, st.sampled_from("abcdef")), max_size=30)


def batch(shard: str, first: int, rows: Sequence[tuple[list[float], str]]) -> ScoredBatch:
    gaps = np.array([gap for row, _ in rows for gap in row], np.float32)
    lengths = np.array([len(row) for row, _ in rows], np.int64)
    return ScoredBatch(
        shard=shard,
        row_index=np.arange(first, first + len(rows)),
        text_hash=[text_hash([text]) for _, text in rows],
        lengths=lengths,
        ends=np.concatenate([np.zeros(0, np.int32), *(np.arange(n, dtype=np.int32) + 1 for n in lengths)]),
        clean=gaps - 3,
        contrast=np.full(len(gaps), -3, np.float32),
        weights=np.ones(len(gaps), np.float32),
    )


def scanned(shards: dict[str, list[tuple[list[float], str]]], top: int, size: int) -> Findings:
    with Scan({name: len(rows) for name, rows in shards.items()}, top) as found:
        for name, rows in shards.items():
            for start in range(0, len(rows), size):
                found.add(batch(name, start, rows[start : start + size]))
        return found.findings()


@settings(deadline=None, max_examples=60)
@given(ROWS, ROWS, st.integers(1, 8), st.integers(1, 9))
def test_the_scan_finds_what_looking_at_every_row_finds(a: Any, b: Any, top: int, size: int) -> None:
    found = scanned({"a": a, "empty": [], "b": b}, top, size)
    places = [("a", i) for i in range(len(a))] + [("b", i) for i in range(len(b))]
    gaps = [np.float32(np.array(row, np.float32) - 3) - np.float32(-3) for row, _ in a + b]
    lowest = [np.nanmin(row) if not np.isnan(row).all() else math.nan for row in gaps]
    amounts = [np.nanmean(np.abs(row.astype(float))) if not np.isnan(row).all() else math.nan for row in gaps]
    contradicts = [score <= -FACTOR_TWO for score in lowest]
    for ranking, scores, counted, ranked in (
        (found.contradictions, lowest, contradicts, contradicts),
        (found.language, amounts, [score < LITTLE for score in amounts], [score == score for score in amounts]),
    ):
        expected = sorted((scores[i], i) for i in range(len(places)) if ranked[i])
        assert ranking.count == sum(counted)
        assert list(ranking.listed) == [places[i] for _, i in expected[:top] if counted[i]]
        assert list(ranking.rows) == [places[i] for _, i in expected[:top]]
        assert ranking.scores == pytest.approx([score for score, _ in expected[:top]])
    texts = Counter(text for _, text in a + b)
    assert found.duplicates.distinct == len(texts)
    assert found.duplicates.repeats == len(places) - len(texts)
    firsts = {text: i for i, (_, text) in reversed(list(enumerate(a + b)))}
    repeats = [(-texts[text], firsts[text], i) for i, (_, text) in enumerate(a + b) if i != firsts[text]]
    assert [(-r.copies, r.first, r.row) for r in found.duplicates.largest] == sorted(repeats)[:top]
    assert [found.place(i) for i in range(len(places))] == places


@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_duplicates_are_the_same_in_pieces_and_on_disk(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(duplicates, "PIECE", piece)
    monkeypatch.setattr(duplicates, "SPOOL_BYTES", 32)
    rng = np.random.default_rng(0)
    texts = [text_hash([str(number)]) for number in rng.zipf(1.5, 700).clip(max=200)]
    with Duplicates() as found:
        for start in range(0, 700, 64):
            found.add(texts[start : start + 64], np.arange(start, min(start + 64, 700)))
        result = found.find(50)
    rows = defaultdict(list)
    for row, text in enumerate(texts):
        rows[text].append(row)
    groups = sorted((own for own in rows.values() if len(own) > 1), key=lambda own: (-len(own), own[0]))
    expected = [Repeat(row, own[0], len(own)) for own in groups for row in own[1:]][:50]
    assert list(result.largest) == expected
    assert (result.distinct, result.repeats) == (len(rows), 700 - len(rows))


def test_memory_does_not_grow_with_the_copies_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "PIECE", 64)
    largest = 0
    merge = duplicates._merged

    def watched(groups: Any, entries: Any) -> Any:
        nonlocal largest
        result = merge(groups, entries)
        largest = max(largest, len(groups) + len(entries))
        return result

    monkeypatch.setattr(duplicates, "_merged", watched)
    with Duplicates() as found:
        found.add([text_hash(["yes"])] * 5000, np.arange(5000))
        assert found.find(3).largest == [Repeat(row, 0, 5000) for row in (1, 2, 3)]
    assert largest <= 65


@settings(deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=200))
def test_lengths_are_exact(values: list[int]) -> None:
    counts = Counts()
    for start in range(0, len(values), 7):
        counts.add(np.array(values[start : start + 7]))
    spread = counts.spread()
    assert (spread.count, spread.minimum, spread.maximum) == (len(values), min(values), max(values))
    assert spread.mean == pytest.approx(np.mean(values))
    for share, value in ((0.05, spread.p5), (0.5, spread.median), (0.95, spread.p95)):
        assert value == np.percentile(values, 100 * share, method="inverted_cdf")


@settings(deadline=None)
@given(st.lists(st.floats(-150, 150, width=32), min_size=1, max_size=100))
def test_gaps_are_exact_to_a_bin(values: list[float]) -> None:
    bins = Bins()
    array = np.array([*values, math.nan, math.inf], np.float32)
    bins.add(array[:50])
    bins.add(array[50:])
    spread = bins.spread()
    assert (spread.count, spread.minimum, spread.maximum) == (len(values), min(values), max(values))
    assert spread.mean == pytest.approx(np.mean(values), abs=1e-4)
    limited = np.clip(values, -figures.LIMIT, figures.LIMIT)
    for share, value in ((0.05, spread.p5), (0.5, spread.median), (0.95, spread.p95)):
        assert abs(value - np.percentile(limited, 100 * share, method="inverted_cdf")) <= 0.51 * STEP or (
            abs(value) >= figures.LIMIT
        )


def test_nothing_has_no_spread() -> None:
    assert Counts().spread().to_dict() == {**dict.fromkeys(Bins().spread().to_dict()), "count": 0}


def test_a_text_longer_than_any_costs_no_memory() -> None:
    counts = Counts()
    counts.add(np.array([2**40]))
    assert len(counts.counts) == figures.MAX_LENGTH + 1


# --- on real outputs ---------------------------------------------------------------------------------------------


def row(name: str, text: str, default: float = 2.0, **gaps: float) -> Entry:
    sample = Sample.caption(name, picture(), text)
    return sample, scored(sample, gaps, default)


def shards() -> dict[str, list[Entry]]:
    failed = (Sample.caption("bad", None, ""), Failure("bad", FailureCode.IMAGE_UNREADABLE, "broken"))
    return {
        "a.parquet": [
            row("a0", "a red kite"),
            failed,
            row("a2", "a blue kite", blue=-4.0),
            row("a3", "the thing", 0.1),
        ],
        "none.parquet": [failed],
        "sub/b.parquet": [row("b0", "a red kite", kite=-1.0), row("b1", "the thing", 0.0), row("b2", "a red kite")],
    }


def test_an_export_lists_every_row_once_with_its_ranks(tmp_path: Path) -> None:
    write_run(tmp_path / "out", shards())
    summary = [{"name": name, "rows": len(rows), "ok": 1} for name, rows in shards().items()]
    findings = scan(str(tmp_path / "out"), summary)
    assert findings.to_dict() == {
        "rows": 6,
        "contradictions": 2,
        "language_only": 2,
        "distinct_texts": 3,
        "duplicate_rows": 3,
    }
    assert export(str(tmp_path / "out"), findings, str(tmp_path / "made" / "quality.parquet")) == 5
    table = pq.read_table(tmp_path / "made" / "quality.parquet")
    assert table.schema.equals(SCHEMA)
    rows = {entry["sample_id"]: entry for entry in table.to_pylist()}
    assert list(rows) == ["a2", "b0", "b1", "a3", "b2"]
    assert [rows[name]["contradiction_rank"] for name in rows] == [1, 2, None, None, None]
    assert [rows[name]["language_rank"] for name in rows] == [None, None, 1, 2, None]
    assert [rows[name]["duplicate_rank"] for name in rows] == [None, 1, 3, None, 2]
    assert (rows["b2"]["copies"], rows["b2"]["first_shard"], rows["b2"]["first_row_index"]) == (3, "a.parquet", 0)
    assert (rows["b1"]["shard"], rows["b1"]["row_index"]) == ("sub/b.parquet", 1)
    assert rows["a2"]["tokens"] == 3
    assert rows["a2"]["lowest_gap"] == pytest.approx(-4)
    assert rows["a2"]["mean_absolute_gap"] == pytest.approx((2 + 4 + 2) / 3)
    assert rows["a2"]["mean_gap"] == pytest.approx((2 - 4 + 2) / 3)
    assert rows["a2"]["language_surprise"] == pytest.approx(3)
    assert rows["a2"]["text_hash"] == text_hash(["a blue kite"])


def test_a_scan_of_a_large_run_may_be_cut_short(tmp_path: Path) -> None:
    write_run(tmp_path, shards())
    summary = [{"name": name, "rows": len(rows), "ok": int(name != "none.parquet")} for name, rows in shards().items()]
    assert scan(str(tmp_path), summary, limit=4).rows == 3
    assert scan(str(tmp_path), summary, limit=7).rows == 6
    assert scan(str(tmp_path), summary, limit=1).rows == 3, "a shard is read all the same"


def test_a_scan_of_a_job_and_an_export_that_cannot_be_written(dataset: Path, output: Path) -> None:
    summary = run(make_job(dataset, output))
    findings = scan(str(output), summary["shards"], top=3)
    assert findings.rows == summary["ok"]
    assert findings.figures.tokens.spread().count == summary["ok"]
    (output.parent / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--export-quality .*/file/q\.parquet' cannot be written"):
        export(str(output), findings, str(output.parent / "file" / "q.parquet"))
    nothing = scan(str(output), [])
    assert export(str(output), nothing, str(output.parent / "empty.parquet")) == 0
    assert pq.read_table(output.parent / "empty.parquet").num_rows == 0
