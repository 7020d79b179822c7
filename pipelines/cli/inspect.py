"""``inspect_run.py``: options in, findings out; the exit status says whether the output is sound."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pipelines.cli.arguments import add_run_output, new_parser
from pipelines.cli.compact import add_gc, collect
from pipelines.cli.samples import TokenStyle, choose_samples, show_samples, weight_range
from pipelines.cli.show import as_document, as_text
from pipelines.output.check import check
from pipelines.output.contents import Output, Problem, look
from pipelines.output.dataset import open_dataset
from pipelines.output.objects import list_items
from pipelines.output.record import RunRecord
from pipelines.output.store import open_store
from pipelines.report.quality.export import export
from pipelines.report.quality.scan import DEFAULT_TOP, Findings, Scan
from scorer.errors import ConfigError, RunError, TokensightError

SOUND: Final = 0
DAMAGED: Final = 1
WRONG: Final = 2

_DESCRIPTION: Final = """\
Look at the output of a run, finished or not: how far it is, whether every published file is what was published, what
is in it. Reads only, unless --gc is given with --delete.
"""

_EPILOG: Final = """\
examples:
  python pipelines/inspect_run.py out/train
  python pipelines/inspect_run.py out/train --sample 10
  python pipelines/inspect_run.py s3://bucket/weights --quick --json
  python pipelines/inspect_run.py out/train --export-quality quality.parquet --html report.html

what is checked:
  Each published file against its marker (bytes, SHA-256, rows, rows ok, tokens); its schema, and the fingerprint in it
  against _run.json; each row: its row_index is its place, its lists have one length, its byte spans ascend and do not
  overlap, its scores are finite, an ok row has no null, a failed one nothing but its reason.

left-overs (--gc AGE):
  Lists, and with --delete removes, attempts that no marker names and local temporary files, older than AGE; nothing
  else is done then. What is safe beside a run at work is told by compact.py --help.

exit status:
  0  sound: all that is published so far is what was published
  1  damaged: something differs, and is listed
  2  an option is wrong, or there is no run, or the dataset that was asked for cannot be read
"""


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser("inspect_run.py", _DESCRIPTION, _EPILOG)
    add_run_output(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of text")
    parser.add_argument("--quick", action="store_true", help="sizes and footers only: no digests, rows or statistics")
    group = parser.add_argument_group("captions", "Instead of a check: captions from the dataset, with their scores.")
    group.add_argument("--sample", type=_positive, metavar="N", help="print N captions, coloured token by token")
    group.add_argument(
        "--by", choices=("gap", "weight"), default="gap", help="what colours show (default: %(default)s)"
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, other captions")
    group.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="auto: on a terminal, unless NO_COLOR is set",
    )
    group.add_argument("--input", metavar="PATH", help="the dataset, where it is not where the run read it")
    group = parser.add_argument_group("files")
    group.add_argument("--html", metavar="FILE", help="write the HTML report of a finished run, with pictures")
    group.add_argument(
        "--export-quality",
        metavar="FILE",
        help="write the rows that are worth a look, ranked, as Parquet: contradictions, texts that language alone "
        "explains, repeats",
    )
    group.add_argument(
        "--top",
        type=_positive,
        default=DEFAULT_TOP,
        metavar="N",
        help="rows in each of its lists (default: %(default)s)",
    )
    add_gc(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.delete and options.gc is None:
        parser.error("--delete goes with --gc AGE")
    if options.quick and options.export_quality:
        parser.error("--export-quality reads every row, which --quick does not")
    try:
        store = open_store(options.output)
        if options.gc is not None:
            collect(store, options.gc, delete=options.delete)
            return SOUND
        output = look(store)
        if options.sample is not None:
            _print_samples(output, options)
            return SOUND
        return _inspect(output, options)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOUND
    except (TokensightError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return WRONG


def _inspect(output: Output, options: argparse.Namespace) -> int:
    problems, findings = _check(output, options)
    rows = _rows_of_dataset(output, options.input)
    last_write = max((item.modified for item in list_items(output.store.root).values()), default=None)
    facts: tuple[Output, Sequence[Problem], Findings | None, int | None, datetime | None]
    facts = (output, problems, findings, rows, last_write)
    if options.json:
        print(json.dumps(as_document(*facts), indent=2, ensure_ascii=False))
    else:
        print(as_text(*facts))
    if findings is not None and options.export_quality:
        if problems:
            _say(f"{options.export_quality} is not written: the scores that it would rank are damaged")
        else:
            count = export(output.store.root, findings, options.export_quality)
            _say(f"{options.export_quality}: {count:,} rows")
    if options.html:
        _write_report(output, options)
    return DAMAGED if problems else SOUND


def _check(output: Output, options: argparse.Namespace) -> tuple[list[Problem], Findings | None]:
    if options.quick:
        return list(check(output, lambda _: None, quick=True)), None
    # A file may hold more rows than its marker says; then they are numbered wrongly, and the file is not sound anyway.
    with Scan({shard.name: shard.tally.rows for shard in output.shards.values()}, options.top) as scan:
        problems = list(check(output, scan.add))
        return problems, scan.findings()


def _rows_of_dataset(output: Output, input: str | None) -> int | None:
    """Rows in all. Of an unfinished run only the dataset knows, which may be out of reach."""
    if output.state == "finished" and output.summary is not None:
        return int(output.summary["rows"])
    if output.record is None:
        return None
    try:
        return sum(shard.rows for shard in open_dataset(output.record, input).shards())
    except (ConfigError, OSError):
        if input is not None:
            raise
        return None


def _print_samples(output: Output, options: argparse.Namespace) -> None:
    source = open_dataset(_record(output), options.input)
    rows = choose_samples(output, options.sample, options.seed)
    if not rows:
        raise ConfigError(f"output {output.store.root} has no published row that was scored yet; let the run go on")
    color = options.color == "always" or (
        options.color == "auto" and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    )
    for line in show_samples(rows, source, TokenStyle(options.by, color, weight_range(rows))):
        print(line)


def _write_report(output: Output, options: argparse.Namespace) -> None:
    from pipelines.report.page import write_report

    write_report(output.store.root, open_dataset(_record(output), options.input), options.html, scanned_rows=None)
    _say(f"{options.html}: the report")


def _record(output: Output) -> RunRecord:
    if output.record is None:
        raise RunError(f"output {output.store.root} has no readable _run.json, so its dataset is unknown; restore it")
    return output.record


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
