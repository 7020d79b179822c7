"""Print the summary of a finished run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pipelines.formatting import contrasts_of, file_size
from pipelines.sources.account import describe_account

_EXAMPLES: Final = 3


def render_summary(summary: Mapping[str, Any], output: str, report: str | None, packaged: bool) -> str:
    """Return a table of what a run produced and where to find it.

    Args:
        summary: The run's summary; see :mod:`pipelines.output.summary`.
        report: Where the report was written, or None.
        packaged: Whether the model is the packaged one.
    """
    model = "the packaged mini model (for trying things out; choose a real one with --model)" if packaged else None
    rows = [
        ("model", model or str(summary["model"])),
        ("scores", f"{contrasts_of(summary)}; {summary['dtype']}, method {summary['method']['name']}"),
        *([("files in", describe_account(summary["files"]))] if "files" in summary else []),
        ("rows in", f"{summary['rows']:,}"),
        ("rows ok", f"{summary['ok']:,}"),
        *([("text-only", f"{summary['text_only']:,} (no image; weights of 1)")] if summary["text_only"] else []),
        ("rows failed", f"{summary['failed']:,}"),
        *(("", line) for line in _failures(summary["failures"])),
        ("tokens", f"{summary['tokens']:,}"),
        ("speed", _speed(summary)),
        *(("", line) for line in _slow_paths(summary["paths"])),
        *(("", line) for line in _cut(summary.get("cut", {}))),
        ("files", f"{len(summary['shards']):,} in {output}, {file_size(sum(s['bytes'] for s in summary['shards']))}"),
        ("summary", f"{output}/_SUCCESS"),
    ]
    if report is not None:
        rows.append(("report", report))
    return table(rows)


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Return names and values in two columns."""
    return "\n".join(f"{name:<12} {value}".rstrip() for name, value in rows)


def _failures(failures: Mapping[str, Any]) -> Iterator[str]:
    for code, failure in failures.items():
        yield f"{failure['count']:>6,}  {code}"
        for example in failure["examples"][:_EXAMPLES]:
            where = f"{example['shard']} row {example['row_index']} ({example['sample_id']})"
            yield f"        · {where}: {example['message']}"
        left = failure["count"] - _EXAMPLES
        if left > 0:
            yield f"        · and {left:,} more"


def _cut(rows: Mapping[str, int]) -> Iterator[str]:
    for tokens, count in rows.items():
        yield f"{count:,} rows: their batches did not fit in memory, and were cut to at most {int(tokens):,} tokens"


def _slow_paths(paths: Mapping[str, int]) -> Iterator[str]:
    if paths.get("plain"):
        why = "the model has no fast path, or it failed its self-check"
        yield f"{paths['plain']:,} rows took a full pass for each branch: {why}"


def _speed(summary: Mapping[str, Any]) -> str:
    if summary["rows_per_second"] is None:
        return "nothing to score"
    rates = f"{summary['rows_per_second']:,.1f} rows/s, {summary['tokens_per_second']:,.0f} tokens/s"
    return f"{rates} over {summary['seconds_scoring']:,.1f} s of scoring, {summary['padding_waste']:.1%} padding"
