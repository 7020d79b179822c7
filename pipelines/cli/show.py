"""Present the findings of an inspection as text or as one JSON document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pipelines.formatting import ago, contrasts_of, count_of, file_size
from pipelines.output.commit import UNITS
from pipelines.output.contents import Output, Problem
from pipelines.output.record import RunRecord
from pipelines.report import method_words
from pipelines.report.quality.figures import Spread
from pipelines.report.quality.scan import Findings
from scorer.columns import undefined
from scorer.config import fingerprint_digest
from scorer.display.printable import printable
from scorer.weights import METHODS

LISTED_PROBLEMS = 50


def as_document(
    output: Output,
    problems: Sequence[Problem],
    findings: Findings | None,
    rows: int | None,
    last_write: datetime | None,
) -> dict[str, Any]:
    """Return everything as plain data.

    Args:
        findings: None if file contents were not read.
        rows: Number of rows in the dataset, if known.
        last_write: When anything was last written to the output.
    """
    record = output.record
    return {
        "output": output.store.root,
        "state": output.state,
        "last_write": None if last_write is None else last_write.isoformat(timespec="seconds"),
        "sound": not problems,
        "problems": [asdict(problem) for problem in problems],
        "rows": rows,
        "rows_committed": output.rows_committed,
        "shards_published": len(output.shards),
        "units_waiting": len(output.open_units),
        "run": None if record is None else {name: getattr(record, name) for name in record.__slots__},
        "fingerprint_sha256": None if record is None else fingerprint_digest(record.fingerprint),
        "summary": output.summary,
        "statistics": None if findings is None else findings.figures.to_dict(),
        "quality": None if findings is None else findings.to_dict(),
    }


def as_text(
    output: Output,
    problems: Sequence[Problem],
    findings: Findings | None,
    rows: int | None,
    last_write: datetime | None,
) -> str:
    """Return everything as text. The arguments are those of :func:`as_document`."""
    lines = [f"{name:<12} {value}".rstrip() for name, value in _facts(output, rows, last_write)]
    if findings is not None and findings.rows:
        spreads = {name: spread for name, spread in findings.figures.spreads().items() if spread.count}
        lines += ["", *_table(spreads), "", *_quality(findings)]
    lines += ["", *_verdict(output, problems, findings is not None)]
    return printable_lines(lines)


def printable_lines(lines: Sequence[str]) -> str:
    """Join lines, escaping control characters: names and messages come from outside."""
    return "\n".join(printable(line) for line in lines)


def _facts(output: Output, rows: int | None, last_write: datetime | None) -> Iterator[tuple[str, str]]:
    yield "output", output.store.root
    written = "" if last_write is None else f", last written to {ago(last_write)}"
    if output.summary is not None and output.state == "finished":
        yield "run", f"finished {output.summary['finished_at']}"
    else:
        yield "run", f"not finished{written}"
    record = output.record
    if record is not None:
        yield "input", record.input
        yield "model", str(record.fingerprint.get("model"))
        dtype = record.fingerprint.get("dtype")
        yield (
            "scores",
            f"{contrasts_of(record.fingerprint)}; {dtype}, method {record.method.get('name')}, {record.layout}",
        )
        yield from _reference(output.store.root, record)
        yield from _of_dataset(output)
        yield "fingerprint", fingerprint_digest(record.fingerprint)
    tallies = [shard.tally for shard in output.shards.values()]
    counts = [(sum(tally.ok for tally in tallies), "rows ok")]
    if text_only := sum(tally.text_only for tally in tallies):
        counts.append((text_only, "text-only"))
    counts.append((sum(tally.failed for tally in tallies), "failed"))
    total = "" if rows is None else f" of {rows:,} ({output.rows_committed / max(rows, 1):.0%})"
    yield "rows", f"{output.rows_committed:,}{total} committed"
    size = sum(shard.size for shard in output.shards.values())
    yield (
        "published",
        f"{count_of(len(output.shards), 'shard')}, {file_size(size)}: "
        + ", ".join(f"{count:,} {what}" for count, what in counts),
    )
    for code, count in sorted(_failures(output).items()):
        yield "", f"{count:>6,}  {code}"
    if output.open_units:
        yield "waiting", f"{count_of(len(output.open_units), 'unit')} not published yet: their shards are not complete"
    units = [bytes_ for key, bytes_ in output.sizes.items() if key.startswith(UNITS)]
    if units:
        hint = "; tokensight compact removes superseded files" if output.state == "finished" else ""
        yield "unit files", f"{len(units):,}, {file_size(sum(units))}{hint}"


def _reference(root: str, record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield where P(text) is from, where the run's weights are derived from it, and what else it is good for."""
    if undefined(record.fingerprint):
        yield "reference", f"the texts alone, by a language model: read_weights(…, method='prior', text={root!r})"
        return
    method = METHODS.get(str(record.method.get("name")))
    if method is not None and method.text_reference:
        contrast = record.fingerprint.get("contrast")
        yield "reference", f"the contrast {contrast}, no text reference; read_weights(…, text=…) joins one"


def _of_dataset(output: Output) -> Iterator[tuple[str, str]]:
    """Yield what only the whole dataset of a finished run tells: thresholds by its gaps, the mean of its weights."""
    if output.summary is None or output.state != "finished":
        return
    if found := method_words.thresholds(output.summary):
        yield "thresholds", ", ".join(found)
    if (mean := method_words.mean_weight(output.summary)) is not None:
        yield "mean weight", f"{mean:.4g}"


def _failures(output: Output) -> dict[str, int]:
    counts: dict[str, int] = {}
    for shard in output.shards.values():
        for code, failure in shard.tally.failures.items():
            counts[code] = counts.get(code, 0) + failure.count
    return counts


def _table(spreads: Mapping[str, Spread]) -> Iterator[str]:
    columns = ("mean", "minimum", "p5", "median", "p95", "maximum")
    titles = ("mean", "min", "5 %", "median", "95 %", "max")
    yield f"{'':<16}" + "".join(f"{title:>10}" for title in titles)
    for name, spread in spreads.items():
        whole = name.startswith(("tokens", "bytes"))
        sign = "+" if name.startswith("gap") else ""
        values = [getattr(spread, column) for column in columns]
        shown = [f"{value:>10,.1f}" if not whole or i == 0 else f"{value:>10,.0f}" for i, value in enumerate(values)]
        yield f"{name:<16}" + "".join(shown if whole else [f"{value:>{sign}10.2f}" for value in values])


def _quality(findings: Findings) -> Iterator[str]:
    tokens = findings.figures.gaps.spread().count
    share = 1 / max(1, findings.rows)
    repeats = (findings.duplicates.repeats, "rows that repeat an earlier row's text")
    if not tokens:  # scored without images
        yield f"{repeats[0]:>7,}  {repeats[1]} ({repeats[0] * share:.1%})"
        return
    up, down = findings.figures.doubled / tokens, findings.figures.halved / tokens
    yield f"{up:>7.1%}  of tokens become at least twice as likely with the image, {down:.1%} at most half as likely"
    for count, what in (
        (findings.contradictions.count, "rows with a word that the image contradicts"),
        (findings.language.count, "rows that language alone explains: tokens change by less than a quarter on average"),
        repeats,
    ):
        yield f"{count:>7,}  {what} ({count * share:.1%})"


def _verdict(output: Output, problems: Sequence[Problem], whole: bool) -> Iterator[str]:
    if problems:
        yield f"DAMAGED: {count_of(len(problems), 'problem')}"
        yield from (f"  {problem.key}: {problem.message}" for problem in problems[:LISTED_PROBLEMS])
        if len(problems) > LISTED_PROBLEMS:
            yield f"  and {len(problems) - LISTED_PROBLEMS:,} more"
        return
    checked = "digests, schema, fingerprint and every row" if whole else "sizes, schema and fingerprint (--quick)"
    yield f"sound: {count_of(len(output.shards), 'published file')} checked, {checked}"
