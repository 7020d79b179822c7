"""``tokensight assess``: say whether a reference model can be trusted on a dataset, before it is scored."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipelines.assess.document import as_document, as_text
from pipelines.assess.page import write_page
from pipelines.assess.rows import choose_rows
from pipelines.cli.model_options import add_model
from pipelines.cli.options import make_config, packaged_model
from pipelines.cli.preflight import check_image_root, is_writable
from pipelines.cli.source_options import add_source, make_source
from pipelines.sources.redacted import without_secrets
from scorer.assessment.assess import assess
from scorer.assessment.verdict import THRESHOLDS, Grade
from scorer.command_line.parser import Parser, not_empty
from scorer.command_line.process import INTERRUPTIONS, STOPPED, WRONG, fail
from scorer.display.printable import printable
from scorer.engine import Scorer
from scorer.errors import ConfigError, TokensightError

UNUSABLE: Final = 3
DEFAULT_ROWS: Final = 200
MIN_ROWS: Final = 2
DEFAULT_PAGE: Final = "assessment.html"

_DESCRIPTION: Final = """\
Say whether a reference model can be trusted on a dataset, by a few hundred of its rows and without labels: does the
model look at the images, does the image favour the caption's own words, can the model read the texts at all?
"""

_THRESHOLDS: Final = "\n".join(
    f"  {name:<14} {one.title}: good {one.bounds[0]}, unusable {one.bounds[1]}; {one.origin}"
    for name, one in THRESHOLDS.items()
)

_EPILOG: Final = f"""\
examples:
  tokensight assess --input s3://bucket/train --model llava-hf/llava-1.5-7b-hf --dtype bfloat16
  tokensight assess --input data/train --rows 500 --json

verdicts:
  good      every measurement supports the scores
  doubtful  a measurement is weak or uncertain; the reasons say which, and what to do
  unusable  the scores say nothing about these images or texts: do not train with them

what decides:
{_THRESHOLDS}
  A figure's whole interval (95 %, bootstrap over rows) must be good, or unusable; else it is doubtful.

exit status:
  0  good or doubtful
  1  stopped
  2  an option, the dataset or the model is invalid
  3  unusable
{INTERRUPTIONS}"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser("tokensight assess", _DESCRIPTION, _EPILOG, "%(prog)s --input PATH [options]")
    group = parser.add_argument_group("input and output")
    group.add_argument(
        "--input",
        type=not_empty,
        required=True,
        metavar="PATH",
        help="the dataset: a file, a folder (read recursively) or a quoted glob; local, s3://, gs:// or hf://",
    )
    group.add_argument(
        "--rows",
        type=int,
        default=DEFAULT_ROWS,
        metavar="N",
        help="how many rows to look at, from all over the dataset (default: %(default)s)",
    )
    group.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed for swapped words and intervals (default: %(default)s)"
    )
    group.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    group.add_argument(
        "--html", type=not_empty, default=DEFAULT_PAGE, metavar="FILE", help="where to write the page (%(default)s)"
    )
    group.add_argument("--no-html", action="store_true", help="write no page")
    add_source(parser)
    add_model(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = build_parser().parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
    try:
        if options.rows < MIN_ROWS:
            raise ConfigError(f"--rows is {options.rows}; it must be {MIN_ROWS} or more, since images are exchanged")
        if options.seed < 0:
            raise ConfigError(f"--seed is {options.seed}; it must be 0 or more")
        if not options.no_html and "://" in options.html:
            raise ConfigError(f"--html is {options.html}; the page is written to a local file: give its path")
        if not options.no_html and not is_writable(options.html):
            raise ConfigError(
                f"--html {options.html} cannot be written; change the permissions, or give another --html"
            )
        check_image_root(options.image_root)
        config = make_config(options)
        source = make_source(options, config)
        dataset = without_secrets(options.input)
        chosen = choose_rows(source, options.rows)
        choices = source.choices()
        for line in [] if choices is None else choices.lines():
            _say(f"  {line}")
        _say(f"reading {len(chosen.samples):,} of {chosen.rows:,} rows in {dataset}; loading the model")
        scorer = Scorer.load(options.model or packaged_model(), config, options.revision)
    except (TokensightError, OSError) as error:
        return fail(error, WRONG)
    try:
        assessment = assess(scorer, chosen.samples, options.seed, chosen.unread)
        document = as_document(dataset, chosen, assessment)
        if not options.no_html:
            write_page(Path(options.html), dataset, chosen, assessment)
            _say(f"{options.html}: page written")
        if options.json:
            print(json.dumps(document, indent=2, ensure_ascii=False))
        else:
            print(as_text(dataset, chosen, assessment))
    except (TokensightError, OSError) as error:
        return fail(error, STOPPED)
    finally:
        scorer.close()
    return UNUSABLE if assessment.verdict.grade is Grade.UNUSABLE else 0


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)
