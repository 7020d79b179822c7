"""What the terminal says of a finished run."""

from __future__ import annotations

from typing import Any

from pipelines.cli.console import render_summary

SUMMARY = {
    "model": "some/model",
    "contrast": "blank",
    "dtype": "bfloat16",
    "method": {"name": "cal"},
    "rows": 1200,
    "ok": 1200,
    "text_only": 0,
    "failed": 0,
    "failures": {},
    "tokens": 36_000,
    "rows_per_second": 100.0,
    "tokens_per_second": 3000.0,
    "seconds_scoring": 12.0,
    "padding_waste": 0.0314,
    "paths": {"fast": 1200},
    "shards": [{"bytes": 1000}],
}


def rendered(**changed: Any) -> str:
    return render_summary({**SUMMARY, **changed}, "out", None, packaged=False)


def test_padding_stands_beside_the_speed() -> None:
    assert "100.0 rows/s, 3,000 tokens/s over 12.0 s of scoring, 3.1% padding" in rendered()


def test_rows_that_cost_two_passes_are_told() -> None:
    assert "full pass" not in rendered()
    assert "1,100 rows took a full pass for each branch" in rendered(paths={"fast": 100, "plain": 1100})


def test_text_only_rows_are_counted_apart() -> None:
    assert "text-only" not in rendered()
    assert "text-only    40 (no image; weights of 1)" in rendered(ok=1160, text_only=40)
