"""How every command line of the package begins."""

from __future__ import annotations

import argparse
from typing import Any, Final

SWITCH: Final[dict[str, Any]] = {"action": argparse.BooleanOptionalAction, "default": False}
"""An option that a file may switch on, and the command line off again."""
_INDENT: Final = 28
_WIDTH: Final = 112


class ManualFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the texts' own line breaks and names of a switch the side that is not the default."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_INDENT)
        self._width = min(self._width, _WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            return action.option_strings[0]
        return super()._format_action_invocation(action)


def new_parser(prog: str, description: str, epilog: str, usage: str | None = None) -> argparse.ArgumentParser:
    """A parser that takes no option by its first letters: a script that relies on them breaks when another option of
    these letters is added.

    Args:
        usage: instead of all options in a row.
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
    """The output of a run, as the one positional argument."""
    parser.add_argument("output", metavar="OUTPUT", help="the output of a run: local, s3:// or gs://")
