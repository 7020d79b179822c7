"""Parse and describe the options of a command."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from scorer.command_line.process import WRONG, fail
from scorer.documents import is_text

_INDENT: Final = 28
_WIDTH: Final = 112
_VERBATIM: Final = 4
"""Lines that are indented at least so far, such as commands, are kept as written."""
_ITEM: Final = re.compile(r" +\S+ {2,}")
"""The start of an item of a list: a word, then the column of its explanation."""


class HelpFormatter(argparse.HelpFormatter):
    """Wrap all prose at the terminal's width, and show a switch as ``--name`` only, without ``--no-name``."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_INDENT)
        self._width = min(self._width, _WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            return action.option_strings[0]
        return super()._format_action_invocation(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line if line else "" for line in reflowed(text, width))


def reflowed(text: str, width: int) -> Iterator[str]:
    """Yield the lines of a text with its paragraphs wrapped.

    Lines of equal indentation are one paragraph. An item of a list (a word, two spaces or more, its explanation) hangs
    below its explanation. Headings (no indentation, ``:`` at the end) and lines indented by four or more are kept.
    """
    lines = text.strip("\n").split("\n")
    while lines:
        line = lines.pop(0)
        indent = len(line) - len(line.lstrip())
        if not line.strip() or indent >= _VERBATIM or (indent == 0 and line.endswith(":")):
            yield line
            continue
        item = _ITEM.match(line)
        hanging = len(item[0]) if item else indent
        while not item and lines and _continues(lines[0], indent):
            line += " " + lines.pop(0).strip()
        yield from textwrap.wrap(
            line.strip() if not item else line[hanging:],
            width,
            initial_indent=item[0] if item else " " * indent,
            subsequent_indent=" " * hanging,
            break_on_hyphens=False,
        )


def _continues(line: str, indent: int) -> bool:
    own = len(line) - len(line.lstrip())
    return bool(line.strip()) and own == indent and not _ITEM.match(line)


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line.

    It accepts no abbreviated options: a script that uses one would break when an option with the same prefix is added.
    """

    def __init__(self, prog: str, description: str, epilog: str | None = None, usage: str | None = None) -> None:
        super().__init__(
            prog, usage, description, epilog, formatter_class=HelpFormatter, allow_abbrev=False, add_help=True
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, but refuse bytes that are no UTF-8: documents that record an option hold text."""
        for word in sys.argv[1:] if args is None else args:
            if not is_text(word):
                self.error(f"the argument {word!r} is not valid UTF-8; rename the file or folder")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        sys.exit(fail(message, WRONG))


def not_empty(text: str) -> str:
    """Return a path, URL or name as given. Raises ArgumentTypeError if it is empty, as an unset variable is."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; give a value, or set the variable it comes from")
    return text


def local_path(text: str) -> Path:
    """Return a local path. Raises ArgumentTypeError if it is empty."""
    return Path(not_empty(text))


def nearest(given: str, names: Iterable[str]) -> str | None:
    """Return the name that ``given`` was probably meant to be, whatever its case; None if nothing is near."""
    by_spelling = {name.lower(): name for name in names}
    found = difflib.get_close_matches(given.lower(), by_spelling, n=1)
    return by_spelling[found[0]] if found else None
