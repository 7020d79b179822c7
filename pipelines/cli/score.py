"""``tokensight score``: run a job and print its summary, or one error message with its remedy."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipelines.cli.console import render_summary
from pipelines.cli.dry_run import print_plan
from pipelines.cli.new_output import prepare_new_output
from pipelines.cli.options import make_executor, make_job, parse_options
from pipelines.cli.preflight import check_image_root, check_paths, is_writable
from pipelines.output.store.local import LocalStore
from pipelines.progress.file import ProgressFile
from pipelines.progress.line import ProgressLine
from pipelines.progress.ray_metrics import RayMetrics
from pipelines.progress.watch import Display, ProgressWatch
from pipelines.run.executor import Executor
from pipelines.run.job import Job, prepare
from pipelines.sources.account import describe_account
from scorer.command_line.process import fail, fail_interrupted
from scorer.display.printable import printable
from scorer.errors import ConfigError, TokensightError

log = logging.getLogger(__name__)

FINISHED: Final = 0
STOPPED: Final = 1
WRONG: Final = 2
TOO_MANY_FAILED: Final = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    try:
        options = parse_options(argv)
    except ConfigError as error:
        return fail(error, WRONG)
    _set_up_logging(options.verbose)
    try:
        _warn_of_lost_output(options.output)
        check_paths(options.input, options.output)
        check_image_root(options.image_root)
        if options.report is not None and not is_writable(options.report):
            raise ConfigError(
                f"--report {options.report} cannot be written; change the permissions there, or give another --report"
            )
        executor = make_executor(options)
        job = make_job(options)
        count = len(job.source.shards())
        shards = f"{count:,} shard{'' if count == 1 else 's'}"
        _say(f"{shards} in {options.input}: {describe_account(job.source.account())}")
        choices = job.source.choices()
        for line in [] if choices is None else choices.lines():
            _say(printable(f"  {line}"))
        write = not options.dry_run
        job, run = prepare_new_output(job, write=write) if options.force_new_run else (job, prepare(job, write=write))
        if options.dry_run:
            print_plan(job, run)
            return FINISHED
    except (TokensightError, OSError) as error:
        return fail(error, WRONG)
    try:
        summary = run.execute(executor, _watch(options, executor, job))
    except ConfigError as error:
        return fail(error, WRONG)
    except (TokensightError, OSError) as error:
        return fail(error, STOPPED, "the scores so far are kept; repeat the command to resume")
    except KeyboardInterrupt as error:
        return fail_interrupted(error, "the scores so far are kept; repeat the command to resume")
    if options.verify:
        _say(f"verified: {len(run.plans):,} published files; each has the SHA-256 that its marker gives")
    report = _write_report(options, job, unchanged=summary == run.stored)
    print(render_summary(summary, job.store.root, report, packaged=options.model is None), flush=True)
    verdict = options.max_failed_rows.verdict(summary)
    return FINISHED if verdict is None else fail(verdict, TOO_MANY_FAILED)


def _watch(options: argparse.Namespace, executor: Executor, job: Job) -> ProgressWatch:
    displays: list[Display] = [ProgressLine(), ProgressFile(job.store)]
    if options.executor == "ray":
        displays.append(RayMetrics(job.store.root))
    return ProgressWatch(displays, lambda: executor.workers)


def _write_report(options: argparse.Namespace, job: Job, *, unchanged: bool) -> str | None:
    """Write the report; return where, or None. A failure is logged only, since the scores are complete without it."""
    local = isinstance(job.store, LocalStore)
    if options.no_report or (options.report is None and not local):
        return None
    destination = options.report or str(Path(job.store.root) / "report.html")
    if options.report is None and unchanged and Path(destination).exists():
        return destination  # repeating a finished run writes nothing
    try:
        from pipelines.report.page import write_report

        write_report(job.store.root, job.source, destination)
    except Exception:
        log.exception("the report %s could not be written; the scores are complete", destination)
        return None
    return destination


def _warn_of_lost_output(output: str) -> None:
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    if submitted and "://" not in output and not Path(output).is_absolute():
        log.warning(
            "--output %s is inside the job's copy of its working directory, %s, which Ray deletes later; "
            "give an absolute path or a URL",
            output,
            Path.cwd(),
        )


def _set_up_logging(verbose: bool) -> None:
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
    for name in ("pipelines", "scorer"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.WARNING)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
