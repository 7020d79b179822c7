"""What the command lines of this package share."""

from __future__ import annotations

import argparse
from typing import Any, Final

from scorer.command_line.parser import not_empty

SWITCH: Final[dict[str, Any]] = {"action": argparse.BooleanOptionalAction, "default": False}
"""Arguments of a switch that a configuration file can turn on and the command line can turn off again."""


def add_run_output(parser: argparse.ArgumentParser) -> None:
    """Add the one positional argument: the output of a run."""
    parser.add_argument("output", type=not_empty, metavar="OUTPUT", help="the output of a run: local, s3:// or gs://")
