"""Run ``tokensight version``: print the versions that scores depend on, for a bug report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from scorer.command_line.parser import Parser
from scorer.versions import SCORING, versions

_SHOWN: Final = (*SCORING, "pyarrow", "ray")


def main(arguments: Sequence[str]) -> int:
    """Print the versions; return 0."""
    parser = Parser("tokensight version", "Print the versions that decide scores.")
    parser.add_argument("--json", action="store_true", help="print one JSON document; null means not installed")
    found = versions(*_SHOWN)
    if parser.parse_args(arguments).json:
        print(json.dumps(found, indent=2))
    else:
        for name, version in found.items():
            print(f"{name:<12}  {version or 'not installed'}")
    return 0
