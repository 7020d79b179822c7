from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from pipelines.cli import options, score
from pipelines.cli.failed_rows import FailedRows
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import snapshot


@pytest.mark.parametrize(
    ("text", "failed", "rows", "allowed"),
    [
        ("1%", 1, 100, True),
        ("1%", 2, 100, False),
        ("1%", 0, 0, True),
        ("0%", 0, 5, True),
        ("0%", 1, 10**9, False),
        ("100%", 5, 5, True),
        ("0.5%", 5, 1000, True),
        ("0.5%", 6, 1000, False),
        ("3", 3, 4, True),
        ("3", 4, 10**9, False),
        ("0", 0, 1, True),
    ],
)
def test_how_many_may_fail(text: str, failed: int, rows: int, allowed: bool) -> None:
    limit = FailedRows.parse(text)
    assert limit.allows(failed, rows) == allowed
    assert str(limit) == text


@pytest.mark.parametrize("text", ["", "%", "-1", "-1%", "101%", "nan%", "inf%", "0.5", "many", "1%%"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="neither a number of rows"):
        FailedRows.parse(text)


@pytest.mark.parametrize(
    ("limit", "status"), [([], 3), (["--max-failed-rows", "3"], 3), (["--max-failed-rows", "4"], 0)]
)
def test_a_run_with_too_many_failed_rows_ends_with_status_3_and_keeps_everything(
    dataset: Path,
    output: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    limit: list[str],
    status: int,
) -> None:
    monkeypatch.setattr(options, "CheckpointEngine", lambda *_: FakeEngine())
    command = ["--input", str(dataset), "--output", str(output), "--executor", "local", "--no-report", *limit]
    assert score.main(command) == status
    printed = capsys.readouterr()
    assert "rows failed  4" in printed.out, "the summary is printed all the same"
    expected = "error: 4 of 38 rows failed (10.53%: 2 image_unreadable, 2 text_missing), more than --max-failed-rows"
    assert (expected in printed.err) == bool(status)
    assert (output / "_SUCCESS").exists()
    before = snapshot(output)
    assert score.main(command) == status, "given again, the same"
    assert snapshot(output) == before
    assert score.main([*command, "--max-failed-rows", "20%"]) == 0
