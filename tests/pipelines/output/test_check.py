"""Every way in which a published output can be damaged is told, and a sound one is not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.output.check import check
from pipelines.output.contents import look
from pipelines.output.reader import ScoredBatch
from pipelines.output.store import open_store
from scorer.errors import ConfigError
from scorer.table import METADATA_KEY
from tests.pipelines.helpers import ROWS, SHARDS, make_job, run, write_dataset
from tests.pipelines.outputs import flip, problems, published_marker, rewrite, stop_after
from tests.pipelines.outputs import with_value as cell

A = "a.parquet"


@pytest.mark.parametrize("quick", [False, True])
def test_a_finished_output_is_sound(sound_output: Path, quick: bool) -> None:
    output = look(open_store(str(sound_output)))
    assert output.state == "finished"
    assert output.rows_committed == ROWS
    assert problems(sound_output, quick=quick) == []


@pytest.mark.parametrize("layout", ["sidecar", "merged"])
def test_a_bucket_is_checked_too(tmp_path: Path, layout: str) -> None:
    url = f"memory://inspect-{tmp_path.name}/out"
    run(make_job(write_dataset(tmp_path / "data"), url, layout=layout))
    assert problems(url) == problems(url, quick=True) == []
    open_store(url).put(A, b"torn")
    assert any("readable Parquet" in problem.message for problem in problems(url))


def test_what_is_checked_is_handed_on_in_order(sound_output: Path) -> None:
    batches: list[ScoredBatch] = []
    assert list(check(look(open_store(str(sound_output))), batches.append)) == []
    rows = [(batch.shard, int(row)) for batch in batches for row in batch.row_index]
    assert rows == [(name, row) for name, count in sorted(SHARDS.items()) for row in range(count) if row not in (3, 5)]


@pytest.mark.parametrize("units", [0, 1, 5, 6])
def test_an_unfinished_output_is_sound_so_far(tmp_path: Path, units: int) -> None:
    stop_after(units, write_dataset(tmp_path / "data"), tmp_path / "out")
    output = look(open_store(str(tmp_path / "out")))
    assert output.state == "unfinished"
    assert output.rows_committed == 5 * units
    assert (A in output.shards) == (units >= 5)
    assert len(output.open_units) == (units if units < 5 else units - 5)
    assert problems(tmp_path / "out") == []


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: path.mkdir(), lambda path: (path.mkdir(), (path / "x").write_text(""))]
)
def test_what_holds_no_run_is_refused(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    make(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"give the --output of a scoring run"):
        look(open_store(str(tmp_path / "out")))


# --- a file that is not what was published ----------------------------------------------------------------------


def other_metadata(output: Path, change: Callable[[dict[str, Any]], None]) -> None:
    def replaced(table: pa.Table) -> pa.Table:
        document = json.loads(table.schema.metadata[METADATA_KEY])
        change(document)
        return table.replace_schema_metadata({METADATA_KEY: json.dumps(document)})

    rewrite(output, A, replaced)


FILES: dict[str, tuple[Callable[[Path], object], str, bool]] = {
    "deleted": (lambda out: (out / A).unlink(), "it was published but is missing", True),
    "empty": (lambda out: (out / A).write_bytes(b""), "it has 0 bytes, but its marker says", True),
    "torn": (lambda out: (out / A).write_bytes((out / A).read_bytes()[:-9]), "not a readable Parquet file", True),
    "longer": (lambda out: (out / A).write_bytes((out / A).read_bytes() + b"x"), "bytes, but its marker says", True),
    "a flipped bit": (lambda out: flip(out / A), "its SHA-256 differs from its marker's", False),
    "fewer rows": (
        lambda out: rewrite(out, A, lambda t: t.slice(0, 20)),
        "it has 20 rows, but its marker says 25",
        True,
    ),
    "more rows": (lambda out: rewrite(out, A, lambda t: pa.concat_tables([t, t])), "it has 50 rows", True),
    "a column less": (lambda out: rewrite(out, A, lambda t: t.drop(["logit_gap"])), "lacks columns logit_gap", True),
    "a column more": (
        lambda out: rewrite(out, A, lambda t: t.append_column("x", pa.array([0] * 25))),
        "in this order",
        True,
    ),
    "another type": (
        lambda out: rewrite(out, A, lambda t: t.set_column(3, "token_starts", t[3].cast(pa.list_(pa.int64())))),
        "its column token_starts is list<",
        True,
    ),
    "no metadata": (
        lambda out: rewrite(out, A, lambda t: t.replace_schema_metadata({})),
        "its schema has no scoring-run metadata",
        True,
    ),
    "another format": (
        lambda out: other_metadata(out, lambda d: d.update(format_version=9)),
        "its format version is 9, but this release reads 1",
        True,
    ),
    "another model": (
        lambda out: other_metadata(out, lambda d: d["fingerprint"].update(seed=1)),
        "its fingerprint differs from that of _run.json: seed is 1, not 0",
        True,
    ),
    "another method": (
        lambda out: other_metadata(out, lambda d: d["method"].update(name="prior")),
        "its method differs from that of _run.json: name is 'prior', not 'cal'",
        True,
    ),
    "another layout": (
        lambda out: other_metadata(out, lambda d: d.update(layout="merged")),
        "its layout differs from that of _run.json: 'merged', not 'sidecar'",
        True,
    ),
    "other columns of the dataset": (
        lambda out: other_metadata(out, lambda d: d["source"]["columns"].update(text="x")),
        "its source differs from that of _run.json: columns is",
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", FILES)
@pytest.mark.parametrize("quick", [False, True])
def test_a_damaged_file_is_told(copy: Path, damage: str, quick: bool) -> None:
    make, expected, shows_quickly = FILES[damage]
    make(copy)
    found = problems(copy, quick=quick)
    assert any(expected in problem.message for problem in found) == (shows_quickly or not quick), found
    assert {problem.key for problem in found} <= {A}
    assert all("run the same command again" in problem.message for problem in found)


# --- rows that are not what a row must be ------------------------------------------------------------------------

ROW = 7
ROWS_DAMAGED: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "swapped": (lambda t: t.take([1, 0, *range(2, 25)]), "row 0 has a row_index that is not its place in the file"),
    "no id": (cell("sample_id", ROW, None), "has no sample_id"),
    "no status": (cell("status", ROW, None), "has an unknown status"),
    "unknown status": (cell("status", ROW, "fine"), "has an unknown status"),
    "ok with an error": (cell("error", ROW, "oh"), "did not fail but has an error"),
    "failed without an error": (cell("error", 3, None), "failed but has no error"),
    "failed with an empty error": (cell("error", 3, ""), "failed but has no error"),
    "no hash": (cell("text_hash", ROW, None), "text_hash is not 32 hexadecimal digits"),
    "a short hash": (cell("text_hash", ROW, "ab"), "text_hash is not 32 hexadecimal digits"),
    "failed with a hash": (cell("text_hash", 3, "0" * 32), "failed but has a text_hash"),
    "ok with a null": (cell("logit_gap", ROW, None), "did not fail but logit_gap is null"),
    "ok without ids": (cell("token_ids", ROW, None), "did not fail but token_ids is null"),
    "failed with scores": (cell("token_weights", 3, [1.0]), "failed but token_weights is not null"),
    "one weight less": (cell("token_weights", ROW, lambda v: v[:-1]), "a different number of token_weights"),
    "no tokens": (cell("token_ids", ROW, []), "did not fail but has no token"),
    "a null inside": (cell("logprob_clean", ROW, lambda v: [None, *v[1:]]), "has a null inside logprob_clean"),
    "a negative id": (cell("token_ids", ROW, lambda v: [-1, *v[1:]]), "has a negative token id"),
    "a span below 0": (cell("token_starts", ROW, lambda v: [-1, *v[1:]]), "or starts below 0"),
    "a span backwards": (cell("token_ends", ROW, lambda v: [*v[:-1], v[-2]]), "ends before it starts"),
    "spans that overlap": (cell("token_ends", ROW, lambda v: [v[0] + 4, *v[1:]]), "before the one before it"),
    "turns backwards": (cell("token_turns", ROW, lambda v: [1, *v[1:]]), "token_turns that do not ascend"),
    "a turn below 0": (cell("token_turns", ROW, lambda v: [-1, *v[1:]]), "token_turns that do not ascend"),
    "a gap of NaN": (cell("logit_gap", ROW, lambda v: [math.nan, *v[1:]]), "has a logit_gap that is not"),
    "an infinite score": (cell("logprob_contrast", ROW, lambda v: [-math.inf, *v[1:]]), "logprob_contrast that"),
    "a negative weight": (cell("token_weights", ROW, lambda v: [-0.1, *v[1:]]), "token_weights entry that is"),
}  # fmt: skip


@pytest.mark.parametrize("damage", ROWS_DAMAGED)
def test_a_damaged_row_is_told(copy: Path, damage: str) -> None:
    change, expected = ROWS_DAMAGED[damage]
    rewrite(copy, A, change)
    batches: list[ScoredBatch] = []
    found = list(check(look(open_store(str(copy))), batches.append))
    assert any(expected in problem.message for problem in found), found
    if damage != "swapped":
        row = 3 if "failed" in damage else ROW
        assert any(problem.message.startswith(f"row {row} ") for problem in found), found
        assert row not in [i for batch in batches if batch.shard == A for i in batch.row_index], "it is not counted"
    assert {problem.key for problem in found} == {A}


def test_several_turns_may_start_anew(copy: Path) -> None:
    def two_turns(table: pa.Table) -> pa.Table:
        table = cell("token_turns", ROW, lambda v: [0, 0, 1, 1])(table)
        return cell("token_starts", ROW, lambda v: [v[0], v[1], 0, v[3]])(table)

    rewrite(copy, A, two_turns)
    assert problems(copy) == []


def test_counts_that_differ_from_the_marker_are_told(copy: Path) -> None:
    marker = published_marker(copy, A)
    document = json.loads(marker.read_text())
    marker.write_text(json.dumps({**document, "ok": 22, "tokens": 7}))
    assert [problem.message.split(";")[0] for problem in problems(copy)] == [
        "it has 23 rows ok, but its marker says 22",
        "it has 92 tokens, but its marker says 7",
    ]
