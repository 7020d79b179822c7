"""``tokensight compact``: list what an output no longer needs, and delete it with ``--delete``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from pipelines.cli.arguments import add_run_output
from pipelines.formatting import file_size
from pipelines.output.compaction import compact, superseded
from pipelines.output.contents import look
from pipelines.output.leftovers import delete_leftovers, find_leftovers, leftover_age
from pipelines.output.store import Store, open_store
from scorer.command_line.parser import Parser
from scorer.command_line.process import INTERRUPTIONS, fail
from scorer.errors import ConfigError, RunError

REFUSED: Final = 1
WRONG: Final = 2
_LISTED: Final = 20

_DESCRIPTION: Final = """\
Delete what an output no longer needs. Without --delete, only list it and change nothing.

Once a run has finished, its published files supersede its unit files, their markers and the records of attempts at
units. These are deleted after every published file has been checked against its digest. The published files, their
markers, _run.json, _SUCCESS and any file that is not part of the run are kept. Rerunning the finished run still scores
nothing; if a published file is lost later, a rerun scores that shard again.
"""

_EPILOG: Final = f"""\
leftovers (--gc):
  Attempts at units that no marker names, and local temporary files of processes that were killed. Nothing younger than
  AGE (at least 1h) is deleted, and an attempt at an uncommitted unit is deleted only if nothing at all has been written
  to the output for AGE. It is therefore safe to use while a run is in progress.

exit status:
  0  deleted or listed
  1  refused: the run has not finished, or a published file is damaged; nothing was deleted
  2  an option or the output is invalid
{INTERRUPTIONS}"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser("tokensight compact", _DESCRIPTION, _EPILOG)
    add_run_output(parser)
    add_gc(parser)
    return parser


def add_gc(parser: argparse.ArgumentParser) -> None:
    """Add the options for leftovers, which ``tokensight inspect`` shares."""
    group = parser.add_argument_group("removal")
    group.add_argument("--gc", metavar="AGE", help="list leftovers older than AGE instead, for example 7d or 12h")
    group.add_argument("--delete", action="store_true", help="delete what would otherwise be listed")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = build_parser().parse_args(argv)
    try:
        store = open_store(options.output)
        if options.gc is not None:
            collect(store, options.gc, delete=options.delete)
        else:
            _compact(store, delete=options.delete)
    except ConfigError as error:
        return fail(error, WRONG)
    except (RunError, OSError) as error:
        return fail(error, REFUSED)
    return 0


def collect(store: Store, age: str, *, delete: bool) -> None:
    """List leftovers, or delete them.

    Raises:
        ConfigError: ``age`` is invalid or too short, or the output holds no run.
    """
    limit = leftover_age(age)
    look(store)
    leftovers = find_leftovers(store, limit)
    gone = list(delete_leftovers(store, leftovers.found)) if delete else leftovers.found
    for leftover in gone[:_LISTED]:
        print(f"{leftover.item.key}  {file_size(leftover.item.size)}  {leftover.kind}")
    if len(gone) > _LISTED:
        print(f"and {len(gone) - _LISTED:,} more")
    total = file_size(sum(leftover.item.size for leftover in gone))
    if delete:
        print(f"deleted {len(gone):,} leftovers, {total}")
    else:
        advice = "; --delete removes them" if gone else ""
        print(f"{len(gone):,} leftovers older than {age}, {total}{advice}")
    if leftovers.kept:
        print(
            f"kept {leftovers.kept:,} attempts at uncommitted units: the output was written to less than {age} "
            "ago, by a run that may still commit them"
        )


def _compact(store: Store, *, delete: bool) -> None:
    output = look(store)
    found = compact(output) if delete else superseded(output)
    objects = f"{len(found.keys):,} objects, {file_size(found.bytes)}, of {len(found.stems):,} published shards"
    if not found.keys:
        print("nothing to compact")
    elif delete:
        print(f"deleted {objects}")
    else:
        print(f"superseded: {objects}; --delete checks the published files, then removes these")
