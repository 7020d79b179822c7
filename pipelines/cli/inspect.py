"""``tokensight inspect``: report what an output holds; the exit status says whether it is sound."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pipelines.cli.arguments import add_run_output
from pipelines.cli.compact import add_gc, collect
from pipelines.cli.preflight import is_writable
from pipelines.cli.show import as_document, as_text
from pipelines.output.check import check
from pipelines.output.contents import Output, Problem, look
from pipelines.output.dataset import open_dataset
from pipelines.output.objects import list_items
from pipelines.output.record import RunRecord
from pipelines.output.store import open_store
from pipelines.report.quality.export import export
from pipelines.report.quality.scan import DEFAULT_TOP, Findings, Scan
from scorer.command_line.parser import Parser, not_empty
from scorer.command_line.process import INTERRUPTIONS, fail
from scorer.errors import ConfigError, RunError, TokensightError
from scorer.extras import needing

SOUND: Final = 0
DAMAGED: Final = 1
WRONG: Final = 2

_DESCRIPTION: Final = """\
Inspect the output of a run, finished or not: how far the run is, whether every published file is intact, and what the
files contain. Nothing is changed unless --gc is given with --delete.
"""

_EPILOG: Final = f"""\
examples:
  tokensight inspect out/train
  tokensight inspect out/train --sample 10
  tokensight inspect s3://bucket/weights --quick --json
  tokensight inspect out/train --export-quality quality.parquet --html report.html

what is checked:
  In each published file: bytes, SHA-256, rows, rows ok and tokens against its marker, the fingerprint against
  _run.json, and the schema. In each row: row_index is the position of the row, all lists have the same length, byte
  spans ascend without overlap, and scores are finite; a scored row has no nulls, and a failed one has only its reason.

leftovers (--gc AGE):
  List attempts that no marker names and local temporary files older than AGE, or delete them with --delete; nothing
  else is inspected. tokensight compact --help says what is safe while a run is in progress.

exit status:
  0  sound: every file published so far is intact
  1  damaged: the differences are listed
  2  an option is invalid, there is no run, or the given dataset cannot be read
{INTERRUPTIONS}"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser("tokensight inspect", _DESCRIPTION, _EPILOG)
    add_run_output(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    parser.add_argument(
        "--quick", action="store_true", help="check only sizes and footers: no digests, rows or statistics"
    )
    group = parser.add_argument_group("captions", "Show captions and their scores instead of checking files.")
    group.add_argument("--sample", type=_positive, metavar="N", help="print N captions, coloured token by token")
    group.add_argument(
        "--by", choices=("gap", "weight"), default="gap", help="what the colours show (default: %(default)s)"
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="seed for choosing them (default: %(default)s)")
    group.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="auto: on a terminal unless NO_COLOR is set or TERM is dumb (default: %(default)s)",
    )
    group.add_argument("--input", type=not_empty, metavar="PATH", help="the dataset, if it has moved since the run")
    group = parser.add_argument_group("files")
    group.add_argument(
        "--html", type=not_empty, metavar="FILE", help="write the HTML report of a finished run, with images"
    )
    group.add_argument(
        "--export-quality",
        type=not_empty,
        metavar="FILE",
        help="write a ranked list of rows worth reviewing, as Parquet: contradictions, texts that language alone "
        "explains, and repeats",
    )
    group.add_argument(
        "--top",
        type=_positive,
        default=DEFAULT_TOP,
        metavar="N",
        help="maximum number of rows in each list (default: %(default)s)",
    )
    add_gc(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.delete and options.gc is None:
        parser.error("--delete requires --gc AGE")
    if options.html and not is_writable(options.html):
        parser.error(f"--html {options.html} cannot be written; change the permissions there, or give another --html")
    if options.quick and options.export_quality:
        parser.error("--export-quality reads every row, but --quick reads none; leave one out")
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
    except (TokensightError, OSError) as error:
        return fail(error, WRONG)


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
            _say(f"{options.export_quality} was not written: the scores to rank are damaged")
        else:
            count = export(output.store.root, findings, options.export_quality)
            _say(f"{options.export_quality}: {count:,} rows")
    if options.html:
        _write_report(output, options)
    return DAMAGED if problems else SOUND


def _check(output: Output, options: argparse.Namespace) -> tuple[list[Problem], Findings | None]:
    if options.quick:
        return list(check(output, lambda _: None, quick=True)), None
    # A file with more rows than its marker says has them numbered wrongly, but such a file is reported as damaged.
    with Scan({shard.name: shard.tally.rows for shard in output.shards.values()}, options.top) as scan:
        problems = list(check(output, scan.add))
        return problems, scan.findings()


def _rows_of_dataset(output: Output, input: str | None) -> int | None:
    """Return the number of rows in the dataset, or None if the run has not finished and the dataset is unreachable."""
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
    with needing("--sample"):
        from pipelines.cli.samples import TokenStyle, choose_samples, show_samples, weight_range

    source = open_dataset(_record(output), options.input)
    rows = choose_samples(output, options.sample, options.seed)
    if not rows:
        raise ConfigError(f"output {output.store.root} has no published, scored row yet; wait for the first shard")
    color = options.color == "always" or (options.color == "auto" and _shows_color())
    for line in show_samples(rows, source, TokenStyle(options.by, color, weight_range(rows))):
        print(line)


def _write_report(output: Output, options: argparse.Namespace) -> None:
    with needing("--html"):
        from pipelines.report.page import write_report

    write_report(output.store.root, open_dataset(_record(output), options.input), options.html, scanned_rows=None)
    _say(f"{options.html}: report written")


def _record(output: Output) -> RunRecord:
    if output.record is None:
        raise RunError(f"output {output.store.root} has no readable _run.json, so its dataset is unknown; restore it")
    return output.record


def _shows_color() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number; give 1 or more")
    return int(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
