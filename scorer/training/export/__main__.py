"""Run ``tokensight export --to FORMAT --weights OUTPUT --data DATASET --output FILE``."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from scorer.command_line.parser import Parser, local_path, not_empty
from scorer.command_line.process import INTERRUPTIONS, WRONG, fail, run_command
from scorer.errors import ConfigError, TokensightError
from scorer.extras import needing
from scorer.method_options import add_method_options, describe_methods
from scorer.table import TEXT_ONLY
from scorer.training.alignment import WeightAligner
from scorer.training.export.columns import (
    IMAGE_OPTION,
    PROMPT_COLUMN_OPTION,
    PROMPT_OPTION,
    TEXT_OPTION,
    ColumnOptions,
    run_columns,
)
from scorer.training.export.dataset import is_weighted, read_examples
from scorer.training.export.formats import FORMATS, OWN_MEANS, OWN_MEANS_ELSE, FormatOptions
from scorer.training.export.images import ImageFiles
from scorer.training.means import MEANS
from scorer.training.row_selection import DROPPED, RowSelection
from scorer.training.rows import WeightRow
from scorer.training.weight_table import WeightTable
from scorer.weights import Method

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
"""The compression of an output, by the suffix of its name."""
THRESHOLD = 0.5
"""The lowest weight that axolotl trains on, unless another is given."""

_DESCRIPTION = """\
Write a dataset with its published weights to one file that a trainer reads directly.

  jsonl          messages, image paths, spans and weights, for WeightRow.from_record; any trainer
  ms-swift       answers as token ids with a loss_scale each; needs --tokenizer; train with --is_binary_loss_scale false
  llava-json     LLaVA's JSON with spans and weights in every record
  llama-factory  samples of LLaMA-Factory's v1 with the weights in extra_info
  axolotl        messages with train_detail: tokens with weights of at least --threshold are trained on

The stop token's weight is written with the spans (jsonl, llava-json, llama-factory). The other formats have no place
for it: ms-swift trains the stop token with weight 1, axolotl as its train_on_eos says.

Rows that failed are left out and counted, and so are rows that --keep-rows or --min-row-gap drops; rows without an
image are kept, with weights of 1. Image bytes are written beside the output file.
"""

_EPILOG = """\
exit status:
  0  written
  2  an option, the weights or the dataset is invalid
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 2 after an error."""
    options = _parser().parse_args(argv)
    try:
        settings = _settings(options)
        table = WeightTable.open(
            options.weights,
            method=_method(options),
            contrast=options.contrast,
            text=options.text_reference,
            text_missing="nan" if options.text_missing == "leave-out" else "error",
            rows=_selection(options),
            mean="dataset" if settings.mean == "dataset" else "none",
            allow_unfinished=options.allow_unfinished,
            keep_shards=1,
        )
        written = _write(table, options, settings)
    except (TokensightError, OSError, ValueError) as error:
        return fail(error, WRONG)
    statuses = Counter(_outcome(row) for row in table)
    left_out, unknown, alone = statuses["failed"], statuses["unknown"], statuses[TEXT_ONLY]
    print(f"{written} examples in {options.output}; {left_out} of {len(table)} rows were not scored and are left out")
    if table.published.min_gap is not None:
        gap = f"{table.published.min_gap:.6g} nats"
        print(f"{statuses[DROPPED]} rows have a mean gap below {gap}: they are left out")
    if table.published.mean_weight is not None:
        print(f"weights are divided by {table.published.mean_weight:.6g}, their mean over the dataset")
    if unknown:
        print(f"{unknown} rows have text that the text reference did not score: they are left out")
    if alone:
        print(f"{alone} rows have no image ({TEXT_ONLY}): they are kept, with weights of 1")
    return 0


def _outcome(row: WeightRow) -> str:
    if row.dropped or (row.ok and is_weighted(row)):
        return row.status
    return "unknown" if row.ok else "failed"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "tokensight export",
        _DESCRIPTION,
        _EPILOG + INTERRUPTIONS + f"\nmethods and their parameters:\n{describe_methods()}",
        "%(prog)s --to FORMAT --weights OUTPUT --output FILE [options]",
    )
    parser.add_argument("--to", required=True, choices=FORMATS, help="the format")
    parser.add_argument(
        "--weights",
        type=not_empty,
        required=True,
        metavar="OUTPUT",
        help="output of a scoring run: a path, or any URL that fsspec opens",
    )
    parser.add_argument(
        "--data",
        type=local_path,
        metavar="PATH",
        help="the dataset that was scored; not needed with --layout merged",
    )
    parser.add_argument(
        "--output",
        type=local_path,
        required=True,
        metavar="FILE",
        help="the file to write; compressed if it ends in .gz, .bz2 or .zst",
    )
    columns = parser.add_argument_group(
        "columns", "By default the columns that the run read; name those that were renamed since."
    )
    columns.add_argument(TEXT_OPTION, metavar="NAME", help="captions or conversations; A,B for several columns")
    columns.add_argument(IMAGE_OPTION, metavar="NAME", help="images; A,B for several columns")
    columns.add_argument(PROMPT_COLUMN_OPTION, metavar="NAME", help="the question that a bare caption answers")
    columns.add_argument(PROMPT_OPTION, metavar="TEXT", help="the question, if no column holds it")
    add_method_options(parser, "derive weights by this method instead of the run's own")
    parser.add_argument(
        "--contrast",
        type=not_empty,
        metavar="NAME",
        help="the contrast whose scores --method reads, of a run with several (default: the run's first)",
    )
    parser.add_argument(
        "--text-reference",
        type=not_empty,
        metavar="OUTPUT",
        help="output of a run that scored the same dataset with a language model, for --method prior",
    )
    parser.add_argument(
        "--text-missing",
        choices=("error", "leave-out"),
        help="what becomes of a row that the text reference did not score (default: error)",
    )
    chosen = parser.add_argument_group("rows", "By default all; the gap of a row is the mean of its tokens'.")
    rows = chosen.add_mutually_exclusive_group()
    rows.add_argument(
        "--keep-rows",
        type=float,
        metavar="SHARE",
        help="keep this share of the scored rows, those with the largest gaps: in (0, 1]",
    )
    rows.add_argument("--min-row-gap", type=float, metavar="NATS", help="keep the rows with at least this gap")
    parser.add_argument(
        "--mean",
        choices=tuple(MEANS),
        help=f"what has a mean of 1 (default: {_defaults()}): {'; '.join(f'{n}: {w}' for n, w in MEANS.items())}",
    )
    parser.add_argument(
        "--tokenizer",
        type=not_empty,
        metavar="NAME",
        help="ms-swift: the trainer's tokenizer, a folder or a hub id",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="N",
        help=f"axolotl: the lowest weight, after --mean, that is trained on (default: {THRESHOLD})",
    )
    parser.add_argument(
        "--allow-unfinished", action="store_true", help="read what an unfinished run has published so far"
    )
    return parser


def _defaults() -> str:
    """Return the means by default, in words."""
    return ", ".join([OWN_MEANS_ELSE, *(f"with {name} {mean}" for name, mean in OWN_MEANS.items())])


def _selection(options: argparse.Namespace) -> RowSelection | None:
    if options.keep_rows is None and options.min_row_gap is None:
        return None
    return RowSelection(options.keep_rows, options.min_row_gap)


def _method(options: argparse.Namespace) -> Method | None:
    if options.text_missing and not options.text_reference:
        raise ConfigError(
            f"--text-missing is {options.text_missing} without a text reference; give one with --text-reference, or "
            "leave it out"
        )
    if options.method is None:
        if options.method_param:
            raise ConfigError("--method-param is given without --method; name the method it belongs to with --method")
        return None
    return Method(options.method, dict(options.method_param))


def _write(table: WeightTable, options: argparse.Namespace, settings: FormatOptions) -> int:
    overrides = ColumnOptions(options.text_column, options.image_column, options.prompt_column, options.prompt)
    columns = run_columns(table.published, overrides)
    _check_output(options.output, options.data)
    images = ImageFiles(options.output.with_suffix(".images"))
    to_object = FORMATS[options.to]

    def objects() -> Iterator[str]:
        for example in read_examples(table, options.data, columns):
            paths = [images.path(image) for image in example.images] if options.to != "axolotl" else []
            yield json.dumps(to_object(example, paths, settings), ensure_ascii=False)

    count = 0
    partial = options.output.with_name(f".{options.output.name}.partial")
    array = options.to == "llava-json"
    options.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pa.OSFile(str(partial), "wb") as plain, _compressed(plain, options.output) as file:
            for count, line in enumerate(objects(), 1):
                file.write((("[" if count == 1 else ",\n") + line if array else line + "\n").encode())
            if array:
                file.write(b"]\n" if count else b"[]\n")
        partial.replace(options.output)  # never leave a partial file under the final name
    except BaseException:  # Ctrl-C too: nothing is left of a file that was not written
        partial.unlink(missing_ok=True)
        images.delete_written()
        raise
    return count


def _compressed(file: pa.NativeFile, output: Path) -> pa.NativeFile:
    """Return the file, or a stream that compresses into it as the suffix of the output's name says."""
    codec = COMPRESSIONS.get(output.suffix.lower())
    return file if codec is None else pa.CompressedOutputStream(file, codec)


def _check_output(output: Path, data: Path | None) -> None:
    """Refuse the dataset itself, and a file inside its folder, which a later run would take for a shard."""
    if data is None:
        return
    here, dataset = output.resolve(), data.resolve()
    if here == dataset or (data.is_dir() and dataset in here.parents):
        raise ConfigError(f"--output {str(output)!r} would write into the dataset {dataset}; name a file outside it")


def _settings(options: argparse.Namespace) -> FormatOptions:
    for name, value, format in (
        ("--threshold", options.threshold, "axolotl"),
        ("--tokenizer", options.tokenizer, "ms-swift"),
    ):
        if value is not None and options.to != format:
            raise ConfigError(f"{name} is {value} with --to {options.to}; it goes with --to {format}: leave it out")
    threshold = THRESHOLD if options.threshold is None else options.threshold
    if not math.isfinite(threshold):
        raise ConfigError(f"--threshold is {threshold}; it must be a finite number")
    mean = options.mean or OWN_MEANS.get(options.to, OWN_MEANS_ELSE)
    if mean == "sequence" and options.to not in OWN_MEANS:
        raise ConfigError(
            f"--mean is sequence with --to {options.to}, which writes no tokens of the trainer's; give none or "
            "dataset, and WeightAligner(mean='sequence') when you train"
        )
    if options.to != "ms-swift":
        return FormatOptions(None, None, threshold, mean)
    if options.tokenizer is None:
        raise ConfigError("--to ms-swift writes token ids; give the trainer's tokenizer with --tokenizer")
    tokenize, tokenizer = _load_tokenizer(options.tokenizer)
    return FormatOptions(tokenize, WeightAligner(tokenizer), threshold, mean)


def _load_tokenizer(name: str) -> tuple[Callable[[str], Sequence[int]], Any]:
    """Load a tokenizer with transformers, as trainers do: it may differ from tokenizer.json alone."""
    with needing("--tokenizer"):
        from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer


if __name__ == "__main__":
    sys.exit(run_command(main, owns_process=True))
