"""Markers, summary and record: what is absent, torn or at odds with the rest is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.helpers import write_dataset
from tests.pipelines.outputs import edit, flip, problems, published_marker, refit, rewrite, stop_after

A = "a.parquet"

DOCUMENTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no record": (lambda out: (out / "_run.json").unlink(), "_run.json", "it is missing"),
    "a torn record": (lambda out: (out / "_run.json").write_text("{"), "_run.json", "it cannot be read"),
    "a torn summary": (lambda out: (out / "_SUCCESS").write_text("{"), "_SUCCESS", "it is not a summary"),
    "a summary that does not add up": (
        lambda out: edit(out / "_SUCCESS", '"ok": 34', '"ok": 33'),
        "_SUCCESS",
        "38 rows are not the sum of 33 ok, 0 text-only and 4 failed",
    ),
    "no marker": (lambda out: published_marker(out, A).unlink(), A, "but it has no marker"),
    "a torn marker": (lambda out: published_marker(out, A).write_text("{"), A, "but it has no marker"),
    "a summary of another file": (
        lambda out: edit(out / "_SUCCESS", '"sha256": "', '"sha256": "0'),
        A,
        "_SUCCESS and its marker give different SHA-256s",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DOCUMENTS)
@pytest.mark.parametrize("quick", [False, True])
def test_a_damaged_document_is_told(copy: Path, damage: str, quick: bool) -> None:
    make, key, expected = DOCUMENTS[damage]
    make(copy)
    found = problems(copy, quick=quick)
    assert any(problem.key == key and expected in problem.message for problem in found), found


def test_a_file_without_marker_is_checked_against_the_summary(copy: Path) -> None:
    published_marker(copy, A).unlink()
    assert len(problems(copy)) == 1
    flip(copy / A)
    assert any("SHA-256" in problem.message and problem.key == A for problem in problems(copy)[1:])


@pytest.mark.parametrize("damage", ["absent", "other bytes", "no marker"])
def test_a_unit_that_waits_is_checked(tmp_path: Path, damage: str) -> None:
    output = tmp_path / "out"
    stop_after(2, write_dataset(tmp_path / "data"), output)
    marker = sorted((output / "_commits").iterdir())[0]
    unit = output / json.loads(marker.read_text())["key"]
    if damage == "absent":
        unit.unlink()
    elif damage == "other bytes":
        flip(unit)
    else:
        marker.write_text("[]")
    (found,) = problems(output)
    assert found.key == f"_commits/{marker.name}"
    assert "run the same command again to score its rows again" in found.message
    assert bool(problems(output, quick=True)) == (damage != "other bytes")


def test_many_kinds_of_faults_are_summed_up(copy: Path) -> None:
    rewrite(copy, A, lambda t: t.set_column(0, "sample_id", pa.nulls(25, pa.string())))
    (found,) = problems(copy)
    assert "row 0 has no sample_id (and 24 more rows)" in found.message


@pytest.mark.parametrize("content", ["0" * 16, "f" * 16])
def test_of_a_shard_scored_anew_the_file_says_which_marker_counts(copy: Path, content: str) -> None:
    marker = published_marker(copy, A)
    before = marker.read_bytes()
    pq.write_table(pq.read_table(copy / A), copy / A, compression="gzip", row_group_size=3)
    refit(copy, A)
    (marker.parent / f"{marker.name.split('-')[0]}-{content}.json").write_bytes(before)
    assert problems(copy) == []
