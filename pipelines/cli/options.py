"""The command line's options, and the job that they ask for."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Final, get_args

from pipelines.cli.arguments import SWITCH, new_parser
from pipelines.cli.config_file import to_yaml, with_config
from pipelines.cli.failed_rows import FailedRows
from pipelines.cli.model_options import add_model
from pipelines.cli.source_options import add_source, make_source
from pipelines.executors.local import LocalExecutor
from pipelines.executors.resources import ActorOptions
from pipelines.output.plan import DEFAULT_ROWS_PER_UNIT
from pipelines.output.store import open_store
from pipelines.run.engine import CheckpointEngine
from pipelines.run.executor import Executor
from pipelines.run.job import Job, OnChanged
from pipelines.run.score_unit import Layout
from pipelines.sources.redacted import without_secrets
from scorer.config import ScorerConfig
from scorer.errors import ConfigError, MissingPackageError
from scorer.extras import needing
from scorer.method_options import add_method_options, describe_methods
from scorer.weights import DEFAULT_METHOD, Method

ROW_TIMEOUT: Final = 300.0
"""Seconds: no forward pass of one batch should take so long, and a job that hangs should not take longer to notice."""

_DESCRIPTION: Final = """\
Score every caption token of a dataset by how much it depends on the picture, and write the scores beside the dataset
as Parquet columns that any trainer can read.

Each token of a caption (or of every assistant turn) is scored twice by a frozen reference model: with the picture,
and with a contrast input that hides it. The raw scores are kept; the column token_weights derives from them.
"""

_EPILOG: Final = """\
examples:
  Try it on a small dataset, with the packaged model, on this machine:
    tokensight score --input data/train --output out/train

  On a running Ray cluster, with a model from the hub:
    ray job submit --working-dir . -- python pipelines/score_dataset.py \\
        --input s3://bucket/train --output s3://bucket/train-weights \\
        --model llava-hf/llava-1.5-7b-hf --dtype bfloat16

  Conversations instead of captions, columns named, the original columns kept in the output:
    tokensight score --input 'data/*.parquet' --output out --layout merged \\
        --image-column img --messages-column conversations

  What would that do, and cost? Nothing is written:
    tokensight score --input data/train --output out/train --dry-run

  The run of another output once more, on a newer model; options from its file, one of them changed:
    tokensight score --config out/train/_config.yaml --output out/again --model org/name

  WebDataset shards, and LLaVA's JSON with its images in a bucket:
    tokensight score --input 's3://bucket/train-*.tar' --output out
    tokensight score --input llava_instruct.json --image-root s3://bucket/images --output out

methods, and their parameters:
{methods}

configuration file:
  Options under their names without dashes. A list stands for an option given again and again, a mapping for
  --method-param NAME=VALUE. The command line has the last word; --no-NAME switches off what the file switched on.
    input: s3://bucket/train
    output: s3://bucket/train-weights
    model: llava-hf/llava-1.5-7b-hf
    method: vig
    method-param: {keep: 0.5}

output:
  One Parquet file per input shard, under the shard's own name (.parquet for other formats), row i answering row i. A
  row that cannot be scored is kept, with its reason in the columns status and error. _SUCCESS holds the summary, as
  JSON, and is written last.

  While a run is at work, _progress.json tells how far it is, as does one line every ten seconds.

  A run that was stopped, however, goes on where it was when the same command is given again. A finished run given
  again does nothing. A command that asks for other scores than the output holds is refused, saying what differs.

exit status:
  0  finished; rows that failed are counted in the summary
  1  stopped; run the same command again to go on
  2  an option, the input or the output is wrong; nothing was scored
  3  finished, but more rows failed than --max-failed-rows allows; everything scored is kept
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; its defaults are ScorerConfig's own."""
    epilog = _EPILOG.replace("{methods}", describe_methods())
    parser = new_parser("tokensight score", _DESCRIPTION, epilog, "%(prog)s --input PATH --output PATH [options]")
    _add_paths(parser)
    add_source(parser)
    add_model(parser)
    _add_failures(parser)
    _add_output(parser)
    _add_execution(parser)
    return parser


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line and of the file that it may name. Raises ConfigError for the file's mistakes."""
    parser = build_parser()
    return parser.parse_args(with_config(parser, sys.argv[1:] if argv is None else argv))


def _add_paths(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("input and output")
    group.add_argument(
        "--config",
        metavar="FILE",
        help="a YAML file of options, under their names without dashes; the command line overrides it. Every run "
        "leaves the one that repeats it in its output, as _config.yaml",
    )
    group.add_argument(
        "--input",
        required=True,
        metavar="PATH",
        help="dataset: a file, a directory (read recursively) or a quoted glob; local, or s3://, gs:// or hf://",
    )
    group.add_argument(
        "--output",
        required=True,
        metavar="PATH",
        help="directory for the scores, made if absent; local, s3:// or gs://",
    )
    group.add_argument(
        "--on-changed",
        choices=get_args(OnChanged),
        default="error",
        help="where an input shard is not what was scored: stop, or score it anew as a whole, or leave out"
        " one that vanished (default: %(default)s)",
    )
    group.add_argument(
        "--force-new-run",
        **SWITCH,
        help="where the output belongs to another run, write to a new folder beside it: OUTPUT-2, OUTPUT-3, …",
    )
    group.add_argument(
        "--dry-run",
        **SWITCH,
        help="write nothing: show the plan, some rows as they would be scored, and what scoring all would cost, from a "
        "short measurement on this machine",
    )
    group.add_argument("--report", metavar="PATH", help="where to write the HTML report (default: OUTPUT/report.html)")
    group.add_argument("--no-report", action="store_true", help="write no report")


def _add_failures(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("rows that fail: each is kept with its reason, and costs its neighbours nothing")
    group.add_argument(
        "--max-failed-rows",
        type=FailedRows.parse,
        default=FailedRows(share=0.01),
        metavar="N|SHARE%",
        help="as many may fail before the finished run counts as failed (exit status 3): 100, or 0.5%% "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--row-timeout",
        type=float,
        default=ROW_TIMEOUT,
        metavar="SECONDS",
        help="a row that hangs for so long when it is decoded or scored, or a batch of rows in the model, is tried "
        "again alone, and then fails; 0: never (default: %(default)g)",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is written")
    add_method_options(
        group,
        "how token_weights derive from the raw scores, which are kept whatever is chosen (default: %(default)s)",
        DEFAULT_METHOD,
    )
    group.add_argument(
        "--layout",
        choices=get_args(Layout),
        default="sidecar",
        help="sidecar: keys and scores; merged: the original columns too (default: %(default)s)",
    )


def _add_execution(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("execution: changes no score")
    group.add_argument(
        "--executor",
        choices=("ray", "local"),
        default="ray",
        help="ray: on the cluster at RAY_ADDRESS, else on one started for this run; local: in this process "
        "(default: %(default)s)",
    )
    group.add_argument("--ray-address", metavar="ADDRESS", help="the cluster to join, instead of RAY_ADDRESS")
    group.add_argument(
        "--actors", type=int, metavar="N", help="processes that hold the model (default: one per GPU, or half the CPUs)"
    )
    group.add_argument("--cpus-per-actor", type=float, metavar="N", help="default: 1")
    group.add_argument("--gpus-per-actor", type=float, metavar="N", help="default: 1 if the cluster has GPUs, else 0")
    group.add_argument(
        "--rows-per-unit",
        type=int,
        metavar="N",
        help=f"rows that are scored and committed together; fixed once a run began (default: {DEFAULT_ROWS_PER_UNIT})",
    )
    group.add_argument("--verbose", **SWITCH, help="log more")


def make_job(options: argparse.Namespace) -> Job:
    """The job that the options ask for. Raises ConfigError."""
    if options.rows_per_unit is not None and options.rows_per_unit < 1:
        raise ConfigError(f"--rows-per-unit is {options.rows_per_unit}; it must be 1 or more")
    if not math.isfinite(options.row_timeout) or options.row_timeout < 0:
        raise ConfigError(f"--row-timeout is {options.row_timeout:g}; it must be 0 (no limit) or more seconds")
    config = make_config(options)
    return Job(
        input=without_secrets(options.input),
        source=make_source(options, config),
        store=open_store(options.output),
        engine=CheckpointEngine(options.model or packaged_model(), config, options.revision),
        method=Method(options.method, dict(options.method_param)),
        layout=options.layout,
        rows_per_unit=options.rows_per_unit,
        on_changed=options.on_changed,
        row_timeout=options.row_timeout or None,
        config=lambda root: to_yaml(build_parser(), options, root),
    )


def make_config(options: argparse.Namespace) -> ScorerConfig:
    """The scorer's options; every one of them is on the command line under its own name."""
    return ScorerConfig.from_dict({name: getattr(options, name) for name in ScorerConfig().to_dict()})


def make_executor(options: argparse.Namespace) -> Executor:
    """The executor that the options ask for. Raises MissingPackageError where Ray is not installed."""
    if options.executor == "local":
        return LocalExecutor()
    try:
        with needing("--executor ray"):
            from pipelines.executors.ray_data import RayDataExecutor
    except MissingPackageError as error:
        raise MissingPackageError(f"{error}, or use --executor local") from error
    asked = ActorOptions(
        actors=options.actors,
        cpus_per_actor=options.cpus_per_actor,
        gpus_per_actor=options.gpus_per_actor,
    )
    return RayDataExecutor(asked, options.ray_address)


def packaged_model() -> str:
    """Where the packaged mini model lies."""
    from scorer.mini import MODEL_PATH

    return str(MODEL_PATH)
