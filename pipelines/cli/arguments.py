"""What every command line of the package shares."""

from __future__ import annotations

import argparse
from typing import Any, Final

SWITCH: Final[dict[str, Any]] = {"action": argparse.BooleanOptionalAction, "default": False}
"""Arguments of a switch that a configuration file can turn on and the command line can turn off again."""
_INDENT: Final = 28
_WIDTH: Final = 112


class ManualFormatter(argparse.RawDescriptionHelpFormatter):
    """Keep line breaks as written, and show a switch as ``--name`` only, without ``--no-name``."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_INDENT)
        self._width = min(self._width, _WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            return action.option_strings[0]
        return super()._format_action_invocation(action)


def new_parser(prog: str, description: str, epilog: str, usage: str | None = None) -> argparse.ArgumentParser:
    """Create a parser that accepts no abbreviated options: a script that uses one would break when an option with the
    same prefix is added.

    Args:
        usage: Replaces the generated list of all options.
    """
    return argparse.ArgumentParser(
        prog=prog,
        usage=usage,
        description=description,
        epilog=epilog,
        formatter_class=ManualFormatter,
        allow_abbrev=False,
    )


def add_run_output(parser: argparse.ArgumentParser) -> None:
    """Add the one positional argument: the output of a run."""
    parser.add_argument("output", metavar="OUTPUT", help="the output of a run: local, s3:// or gs://")
