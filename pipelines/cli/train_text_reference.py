"""``tokensight train-text-reference``: train a language model on a dataset's texts, for the method ``prior``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from pipelines.cli.preflight import check_paths
from pipelines.cli.source_options import add_columns, add_format, columns_of
from pipelines.formatting import count_of
from pipelines.sources import Captions, Source
from pipelines.sources.account import describe_account
from pipelines.sources.formats import open_source
from pipelines.sources.images import UnreadImages
from pipelines.sources.redacted import without_secrets
from scorer.command_line.parser import Parser, local_path, not_empty
from scorer.command_line.process import INTERRUPTIONS, fail, fail_interrupted
from scorer.display.printable import printable
from scorer.errors import RunError, TokensightError
from scorer.results import Failure
from scorer.text_reference.recipe import Recipe
from scorer.text_reference.train import train
from scorer.types import DEFAULT_PROMPT, Sample

FINISHED: Final = 0
STOPPED: Final = 1
WRONG: Final = 2

_READ_ROWS: Final = 1024
_DEFAULTS: Final = Recipe()
_CONTINUE: Final = "repeat the command to continue from the last checkpoint"

_DESCRIPTION: Final = """\
Train a small causal language model on the texts that would be scored, without their images: the text reference of the
method prior. Prompts, questions and earlier turns are context; it learns the scored texts and the tokens that end them.

A share of the texts is held out; the checkpoint that predicts them best is kept, and their perplexity is printed and
recorded in DIR/text_reference.json.
"""

_EPILOG: Final = f"""\
examples:
  Train one, score the same texts with it, and export PRIOR's weights of a dataset that out/train scored:
    tokensight train-text-reference --input data/train --output out/lm
    tokensight score --input data/train --output out/text \\
        --model out/lm --contrast removed --method prior
    tokensight export --to jsonl --weights out/train --data data/train \\
        --method prior --text-reference out/text --output out/train.jsonl

  Train a model further that knows the language already:
    tokensight train-text-reference --input data/train --output out/lm \\
        --base org/name

All texts are held in memory. One GPU is used if there is one. To continue after an interruption, repeat the command.

exit status:
  0  trained, or trained already
  1  stopped: training cannot continue
  2  an option, the input or the output is invalid; nothing was trained
{INTERRUPTIONS}"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        "tokensight train-text-reference", _DESCRIPTION, _EPILOG, "%(prog)s --input PATH --output DIR [options]"
    )
    group = parser.add_argument_group("input and output")
    group.add_argument(
        "--input",
        type=not_empty,
        required=True,
        metavar="PATH",
        help="the dataset: a file, a folder (read recursively) or a quoted glob; local, s3://, gs:// or hf://",
    )
    add_format(group)
    group.add_argument(
        "--output", type=local_path, required=True, metavar="DIR", help="local folder for the model, created if missing"
    )
    group.add_argument(
        "--prompt", default=DEFAULT_PROMPT, help="instruction that a bare caption answers (default: %(default)r)"
    )
    add_columns(parser)
    _add_model(parser.add_argument_group("model"))
    _add_training(parser.add_argument_group("training"))
    return parser


def _add_model(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--base",
        type=not_empty,
        metavar="MODEL",
        help="train this causal language model further: a folder or a hub id (default: train one from scratch)",
    )
    group.add_argument(
        "--tokenizer",
        type=not_empty,
        metavar="NAME",
        help="tokenizer of a model from scratch: a folder or a hub id (default: a BPE trained on the texts)",
    )
    for name, meaning in (
        ("vocab_size", "maximum number of tokens of that BPE"),
        ("hidden", "width of a model from scratch, a multiple of 64"),
        ("layers", "decoder layers of a model from scratch"),
        ("context", "context of a model from scratch, in tokens; longer texts are cut"),
    ):
        _add_number(group, name, meaning, int)


def _add_training(group: argparse._ActionsContainer) -> None:
    for name, meaning, kind in (
        (
            "epochs",
            "maximum passes over the texts; training stops when it no longer improves on the held-out texts",
            int,
        ),
        ("batch_size", "rows per step", int),
        ("held_out", "share of the texts to hold out", float),
        ("seed", "seed of the split, the initial weights and the order of rows", int),
    ):
        _add_number(group, name, meaning, kind)
    group.add_argument(
        "--learning-rate",
        type=float,
        metavar="RATE",
        help=f"peak learning rate (default: {_DEFAULTS.peak_rate:g} from scratch, "
        f"{Recipe(base='x').peak_rate:g} with --base)",
    )


def _add_number(group: argparse._ActionsContainer, name: str, meaning: str, kind: Any) -> None:
    option, default = f"--{name.replace('_', '-')}", getattr(_DEFAULTS, name)
    group.add_argument(option, type=kind, default=default, metavar="N", help=f"{meaning} (default: %(default)s)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = build_parser().parse_args(argv)
    try:
        recipe = Recipe(**{field.name: getattr(options, field.name) for field in fields(Recipe)})
        check_paths(options.input, str(options.output))
        source = open_source(
            options.input, options.format, columns_of(options), prompt=options.prompt, images=UnreadImages()
        )
        shards = source.shards()
        _say(f"{count_of(len(shards), 'shard')} in {options.input}: {describe_account(source.account())}")
        choices = source.choices()
        for line in [] if choices is None else choices.lines():
            _say(printable(f"  {line}"))
        record = train(lambda: _samples(source), options.output, recipe, _identity(options, source), _say)
    except RunError as error:
        return fail(error, STOPPED, _CONTINUE)
    except (TokensightError, OSError) as error:
        return fail(error, WRONG)
    except KeyboardInterrupt as error:
        return fail_interrupted(error, _CONTINUE)
    _print_record(record, options.output)
    return FINISHED


def _identity(options: argparse.Namespace, source: Source) -> dict[str, Any]:
    """Return what decides the rows: another dataset, or other columns, make another model."""
    shards = [shard.identity() for shard in source.shards()]
    read = {"input": without_secrets(options.input), "prompt": options.prompt, "source": source.fingerprint()}
    return {**read, "shards": shards}


def _samples(source: Source) -> Iterator[Sample | Failure]:
    """Yield each row's texts; of a row with several captions, each is a sample."""
    for shard in source.shards():
        for start in range(0, shard.rows, _READ_ROWS):
            for row in source.read(shard, start, min(start + _READ_ROWS, shard.rows)):
                if isinstance(row, Captions):
                    yield from (row.sample(k) for k, text in enumerate(row.texts) if text.strip())
                else:
                    yield row


def _print_record(record: dict[str, Any], output: Path) -> None:
    rows, held_out = record["rows"], record["held_out"]
    for name, value in (
        ("model", f"{output}: {record['parameters']:,} parameters, best at step {record['best_step']:,}"),
        ("trained on", f"{rows['trained_on']:,} rows, {record['tokens']:,} tokens; {rows['failed']:,} failed"),
        ("held out", f"{rows['held_out']:,} rows, {held_out['tokens']:,} tokens"),
        (
            "perplexity",
            f"{held_out['perplexity']:.2f} per token held out, {held_out['bits_per_byte']:.3f} bits per byte",
        ),
        ("next", f"tokensight score --model {output} --contrast removed --method prior --input … --output …"),
    ):
        print(f"{name:<12} {value}", flush=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
