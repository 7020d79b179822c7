"""The options of ``tokensight score``, and the job they describe."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Final, get_args

from pipelines.cli.arguments import SWITCH
from pipelines.cli.config_file import to_yaml, with_config
from pipelines.cli.failed_rows import FailedRows
from pipelines.cli.model_options import add_model, describe_contrasts
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
from scorer.command_line.parser import Parser, not_empty
from scorer.command_line.process import INTERRUPTIONS
from scorer.config import ScorerConfig
from scorer.errors import ConfigError, MissingPackageError
from scorer.extras import needing
from scorer.method_options import add_method_options, describe_methods
from scorer.weights import DEFAULT_METHOD, Method

ROW_TIMEOUT: Final = 300.0
"""Seconds: longer than the forward pass of any batch should take, yet short enough to notice a hang."""

_DESCRIPTION: Final = """\
Score every caption token of a dataset by how much it depends on the image, and write the scores as Parquet columns that
any trainer can read alongside the dataset.

A frozen reference model scores each token of a caption (or of every assistant turn) twice: with the image, and with a
contrast input that hides it. The raw scores are stored; the column token_weights is derived from them.
"""

_EPILOG: Final = """\
examples:
  Try it on a small dataset, with the packaged model, on this machine:
    tokensight score --input data/train --output out/train

  On a running Ray cluster, with a model from the hub:
    ray job submit --working-dir . -- python pipelines/score_dataset.py \\
        --input s3://bucket/train --output s3://bucket/train-weights \\
        --model llava-hf/llava-1.5-7b-hf --dtype bfloat16

  Score conversations instead of captions, name the columns, and keep the original columns in the output:
    tokensight score --input 'data/*.parquet' --output out --layout merged \\
        --image-column img --messages-column conversations

  Show what that would do and cost, without writing anything:
    tokensight score --input data/train --output out/train --dry-run

  Repeat an earlier run with another model, taking the other options from its file:
    tokensight score --config out/train/_config.yaml \\
        --output out/again --model org/name

  WebDataset shards, and LLaVA's JSON with its images in a bucket:
    tokensight score --input 's3://bucket/train-*.tar' --output out
    tokensight score --input llava_instruct.json \\
        --image-root s3://bucket/images --output out

contrasts, and what the model sees of each (docs/contrasts.md):
{contrasts}

methods and their parameters:
{methods}

configuration file:
  Keys are option names without the leading dashes. A list repeats an option; a mapping gives --method-param NAME=VALUE.
  The command line overrides the file; --no-NAME turns off a switch that the file turns on.
    input: s3://bucket/train
    output: s3://bucket/train-weights
    model: llava-hf/llava-1.5-7b-hf
    method: vig-row
    method-param: {keep: 0.5}

output:
  One Parquet file per input shard, under the same name (.parquet for other formats); row i of the output belongs to row
  i of the shard. A row that cannot be scored is kept, with the reason in the columns status and error. _SUCCESS holds
  the summary as JSON and is written last.

  While a run is in progress, _progress.json and a line printed every ten seconds show how far it is.

  To resume a run that was stopped for any reason, repeat the same command. Repeating a finished run does nothing if
  its files still have their sizes; --verify compares their contents. What is damaged is rebuilt, with a warning. A
  command that would produce different scores from those in the output is refused with a list of the differences.

exit status:
  0  finished; the summary counts failed rows
  1  stopped, or standard output cannot be written
  2  an option, the input or the output is invalid; nothing was scored
  3  finished, but more rows failed than --max-failed-rows allows; all scores are kept
{interruptions}
  After 1, 130 and 143, repeat the command to resume.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; defaults come from :class:`ScorerConfig`."""
    epilog = _EPILOG
    for name, text in (
        ("{contrasts}", describe_contrasts()),
        ("{methods}", describe_methods()),
        ("{interruptions}", INTERRUPTIONS.rstrip()),
    ):
        epilog = epilog.replace(name, text)
    parser = Parser("tokensight score", _DESCRIPTION, epilog, "%(prog)s --input PATH --output PATH [options]")
    _add_paths(parser)
    add_source(parser)
    add_model(parser)
    _add_failures(parser)
    _add_output(parser)
    _add_execution(parser)
    return parser


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line and the configuration file it may name. Raises ConfigError if the file is invalid."""
    parser = build_parser()
    return parser.parse_args(with_config(parser, sys.argv[1:] if argv is None else argv))


def _add_paths(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("input and output")
    group.add_argument(
        "--config",
        type=not_empty,
        metavar="FILE",
        help="a YAML file of options, named without the leading dashes; the command line overrides it. Every run "
        "writes the file that repeats it to _config.yaml in its output",
    )
    group.add_argument(
        "--input",
        type=not_empty,
        required=True,
        metavar="PATH",
        help="the dataset: a file, a folder (read recursively) or a quoted glob; local, s3://, gs:// or hf://",
    )
    group.add_argument(
        "--output",
        type=not_empty,
        required=True,
        metavar="PATH",
        help="folder for the scores, created if missing; local, s3:// or gs://",
    )
    group.add_argument(
        "--on-changed",
        choices=get_args(OnChanged),
        default="error",
        help="what to do if an input shard has changed or vanished since it was scored: stop with an error, or score "
        "the whole shard again and leave a vanished one out of the summary (default: %(default)s)",
    )
    group.add_argument(
        "--force-new-run",
        **SWITCH,
        help="if the output belongs to another run, write to a new folder beside it: OUTPUT-2, OUTPUT-3, …",
    )
    group.add_argument(
        "--verify",
        **SWITCH,
        help="read every published file, even of a finished run, and compare its SHA-256 with its marker's; publish a "
        "damaged one again. Without this option, only sizes are compared",
    )
    group.add_argument(
        "--dry-run",
        **SWITCH,
        help="write nothing; show the plan, some rows as they would be scored, and what scoring all rows would cost, "
        "estimated from a short measurement on this machine",
    )
    group.add_argument(
        "--report",
        type=not_empty,
        metavar="PATH",
        help="where to write the HTML report (default: OUTPUT/report.html)",
    )
    group.add_argument("--no-report", action="store_true", help="write no report")


def _add_failures(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("failed rows, each kept with its reason and without effect on other rows")
    group.add_argument(
        "--max-failed-rows",
        type=FailedRows.parse,
        default=FailedRows(share=0.01),
        metavar="N|SHARE%",
        help="how many rows may fail before a finished run exits with status 3: a number, or a share such as 0.5%% "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--row-timeout",
        type=float,
        default=ROW_TIMEOUT,
        metavar="SECONDS",
        help="time limit for decoding or scoring a row, or a batch in the model; a row that exceeds it is retried "
        "alone, then fails; 0: no limit (default: %(default)g)",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is written")
    add_method_options(
        group,
        "how token_weights are derived from the raw scores, which are always stored (default: %(default)s)",
        DEFAULT_METHOD,
    )
    group.add_argument(
        "--layout",
        choices=get_args(Layout),
        default="sidecar",
        help="sidecar: keys and scores; merged: also the original columns (default: %(default)s)",
    )


def _add_execution(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("execution, without effect on the scores except for rounding (--rows-per-unit)")
    group.add_argument(
        "--executor",
        choices=("ray", "local"),
        default="ray",
        help="ray: on the cluster at RAY_ADDRESS, or on one started for this run; local: in this process "
        "(default: %(default)s)",
    )
    group.add_argument("--ray-address", metavar="ADDRESS", help="the cluster to connect to, overriding RAY_ADDRESS")
    group.add_argument(
        "--actors", type=int, metavar="N", help="processes that hold the model (default: one per GPU, or half the CPUs)"
    )
    group.add_argument("--cpus-per-actor", type=float, metavar="N", help="CPUs that each actor reserves (default: 1)")
    group.add_argument(
        "--gpus-per-actor",
        type=float,
        metavar="N",
        help="GPUs that each actor reserves (default: as many as --tensor-parallel if the cluster has GPUs, else 0)",
    )
    group.add_argument(
        "--encoders",
        type=int,
        metavar="N",
        help="processes that read and encode rows for each actor (default: measured while running; at most its "
        "share of the CPUs)",
    )
    group.add_argument(
        "--rows-per-unit",
        type=int,
        metavar="N",
        help=f"rows scored and committed together; fixed once a run has started (default: {DEFAULT_ROWS_PER_UNIT})",
    )
    group.add_argument("--verbose", **SWITCH, help="log more")


def make_job(options: argparse.Namespace) -> Job:
    """Build the job that the options describe. Raises ConfigError."""
    if options.rows_per_unit is not None and options.rows_per_unit < 1:
        raise ConfigError(f"--rows-per-unit is {options.rows_per_unit}; it must be 1 or more")
    if not math.isfinite(options.row_timeout) or options.row_timeout < 0:
        raise ConfigError(f"--row-timeout is {options.row_timeout:g}; it must be 0 (no limit) or more, in seconds")
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
        verify=options.verify,
        config=lambda root: to_yaml(build_parser(), options, root),
    )


def make_config(options: argparse.Namespace) -> ScorerConfig:
    """Build the scorer's configuration from the options of the same names."""
    kept = "contrast_cache_bytes"  # of the service and of notebooks: a run keeps no prefix from call to call
    return ScorerConfig.from_dict({name: getattr(options, name) for name in ScorerConfig().to_dict() if name != kept})


def make_executor(options: argparse.Namespace) -> Executor:
    """Build the executor that the options describe. Raises MissingPackageError if Ray is not installed."""
    if options.executor == "local":
        return LocalExecutor()
    try:
        with needing("--executor ray"):
            from pipelines.executors.ray_actors import RayExecutor
    except MissingPackageError as error:
        raise MissingPackageError(f"{error}, or use --executor local") from error
    actor_options = ActorOptions(
        actors=options.actors,
        cpus_per_actor=options.cpus_per_actor,
        gpus_per_actor=options.gpus_per_actor,
        encoders=options.encoders,
        gpus_per_model=None if options.device_map else options.tensor_parallel,
    )
    return RayExecutor(actor_options, options.ray_address)


def packaged_model() -> str:
    """Return the path of the packaged mini model."""
    from scorer.mini import MODEL_PATH

    return str(MODEL_PATH)
