"""How every command line of the package begins."""

from __future__ import annotations

import argparse


def new_parser(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser that keeps the texts' own line breaks, and takes no option by its first letters: a script that relies on
    them breaks when another option of these letters is added."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_run_output(parser: argparse.ArgumentParser) -> None:
    """The output of a run, as the one positional argument."""
    parser.add_argument("output", metavar="OUTPUT", help="the output of a run: local, s3:// or gs://")
