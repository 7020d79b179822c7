"""``_SUCCESS`` is read in one place: absent is unfinished, damaged is named with what to do about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.output.store import open_store
from pipelines.output.summary import Summary, read_finished, read_summary
from pipelines.report.page import write_report
from scorer.errors import OtherRunError, RunError
from tests.pipelines.helpers import make_job, run
from tests.pipelines.outputs import problems
from tests.pipelines.report.runs import MemorySource


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    return edit


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "it is empty"),
    "torn": (lambda data: data[: len(data) // 2], "Expecting|Unterminated|Invalid"),
    "not text": (lambda _: b"\xff", "it is not UTF-8: byte 0 is 0xff"),
    "a list": (lambda _: b"[1]", "not an object"),
    "no shards": (edited(lambda d: d.pop("shards")), "it has no list of shards"),
    "a shard without a name": (edited(lambda d: d["shards"][0].pop("name")), "lacks a name or a number of rows"),
    "a shard that is text": (edited(lambda d: d["shards"].append("x")), "lacks a name or a number of rows"),
    "damaged gaps": (
        edited(lambda d: d["gaps"]["blank"]["rows"].pop("bins")),
        "a histogram lacks its lists of bins and counts",
    ),
    "a damaged total": (edited(lambda d: d["weights"].update(tokens="9")), "the total of its weights is"),
    "a shard without its digest": (
        edited(lambda d: d["shards"][0].pop("sha256")),
        "its shard 'a.parquet' has no sha256",
    ),
    "no counts": (edited(lambda d: (d.pop("ok"), d.pop("tokens"))), "it has no ok, tokens"),
    "wrong counts": (edited(lambda d: d.update(ok=33)), "38 rows are not the sum of 33 ok, 0 text-only and 4 failed"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_summary_is_a_named_problem_for_whoever_reads_it(copy: Path, dataset: Path, damage: str) -> None:
    make, why = DAMAGED[damage]
    (copy / "_SUCCESS").write_bytes(make((copy / "_SUCCESS").read_bytes()))
    message = f"_SUCCESS is not a summary .*{why}.*; delete it and run the same command again"
    with pytest.raises(RunError, match=message):
        read_summary(open_store(str(copy)))
    with pytest.raises(RunError, match=message):
        write_report(str(copy), MemorySource({}), str(copy / "report.html"))
    with pytest.raises(RunError, match=message):
        run(make_job(dataset, copy))
    assert [problem.key for problem in problems(copy)] == ["_SUCCESS"]
    (copy / "_SUCCESS").unlink()
    assert run(make_job(dataset, copy))["ok"] == 34
    assert problems(copy) == []


@pytest.mark.parametrize("absent", ["_SUCCESS", "_run.json"])
def test_what_needs_a_finished_run_refuses_another(copy: Path, absent: str) -> None:
    (copy / absent).unlink()
    message = f"{absent} does not exist, but a finished run is needed; run the scoring command"
    with pytest.raises(RunError, match=message):
        read_finished(open_store(str(copy)))


def test_a_torn_record_is_refused(copy: Path) -> None:
    (copy / "_run.json").write_text("{")
    with pytest.raises(OtherRunError, match=r"_run\.json, .* cannot be read: it is not JSON"):
        read_finished(open_store(str(copy)))


def test_a_written_summary_has_every_key_and_no_other(sound_output: Path) -> None:
    summary = read_summary(open_store(str(sound_output)))
    assert summary is not None
    assert set(summary) == set(Summary.__annotations__)
