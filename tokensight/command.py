"""Run the command ``tokensight``: one table of subcommands, each imported only when it is chosen."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from scorer.command_line.parser import nearest
from scorer.command_line.process import WRONG, fail, run_command
from scorer.extras import PACKAGES, needing, require


@dataclass(frozen=True, slots=True)
class Subcommand:
    """One subcommand.

    Attributes:
        help: one line of help text.
        module: the module whose ``main(arguments)`` returns the exit status.
        extra: the extra that installs what the subcommand needs; None if the base installation is enough.
        needs: modules that the subcommand cannot do without, checked before it is imported.
    """

    help: str
    module: str
    extra: str | None = None
    needs: tuple[str, ...] = ()


def _of(*extras: str) -> tuple[str, ...]:
    return tuple(module for module, package in PACKAGES.items() if package.extra in extras)


SUBCOMMANDS: Final[Mapping[str, Subcommand]] = {
    "score": Subcommand(
        "score a dataset, on this machine or on a Ray cluster",
        "pipelines.cli.score",
        "score",
        _of("score"),
    ),
    "assess": Subcommand(
        "ask whether a reference model can be trusted",
        "pipelines.cli.assess",
        "score",
        _of("score"),
    ),
    "inspect": Subcommand(
        "inspect an output: progress, integrity, contents",
        "pipelines.cli.inspect",
    ),
    "compact": Subcommand(
        "free what a finished output no longer needs",
        "pipelines.cli.compact",
    ),
    "export": Subcommand(
        "write a dataset with its weights for a trainer",
        "scorer.training.export.__main__",
    ),
    "train-text-reference": Subcommand(
        "train a language model on the captions, for PRIOR",
        "pipelines.cli.train_text_reference",
        "text-reference",
        (*_of("score"), "accelerate"),
    ),
    "serve": Subcommand(
        "score over HTTP",
        "service.__main__",
        "service",
        _of("score", "service"),
    ),
    "version": Subcommand(
        "print the versions that decide scores",
        "tokensight.version",
    ),
}

_HELP: Final = """\
usage: tokensight COMMAND [options]

Visual token weights for training vision-language models, computed once.

commands:
{commands}

Options of a command: tokensight COMMAND --help

examples:
  tokensight score --input data/train --output out/train
  tokensight inspect out/train --sample 10"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand named by the first argument; return its exit status, or 2 if it is unknown or cannot run."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(lambda: _run(given), owns_process=arguments is None)


def _run(arguments: Sequence[str]) -> int:
    name, *rest = arguments or [""]
    if name == "help":
        name, rest = (rest[0], ["--help"]) if rest else ("--help", [])
    if name in ("", "-h", "--help"):
        print(help_text())
        return 0 if name else WRONG
    subcommand = SUBCOMMANDS.get(name)
    if subcommand is None:
        near = nearest(name, SUBCOMMANDS)
        hint = f"the nearest is {near!r}, and " if near else ""
        return fail(f"there is no command {name!r}; {hint}tokensight --help lists all", WRONG)
    wanted_by = f"tokensight {name}"
    require(*subcommand.needs, wanted_by=wanted_by, extra=subcommand.extra)
    with needing(wanted_by):
        run: Callable[[Sequence[str]], int] = import_module(subcommand.module).main
        return run(rest)


def help_text() -> str:
    """Return what ``tokensight --help`` prints: one screen."""
    width = max(map(len, SUBCOMMANDS))
    return _HELP.format(commands="\n".join(f"  {name:<{width}}  {one.help}" for name, one in SUBCOMMANDS.items()))
