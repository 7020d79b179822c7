"""``tokensight version``: what an output's scores depend on, for a report of a problem."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Final

from scorer.versions import SCORING, versions

_SHOWN: Final = (*SCORING, "pyarrow", "ray")


def main(arguments: Sequence[str]) -> int:
    """Print the versions; returns 0."""
    parser = argparse.ArgumentParser(
        "tokensight version", description="Print the versions that decide scores.", allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="one JSON document, null for what is not installed")
    found = versions(*_SHOWN)
    if parser.parse_args(arguments).json:
        print(json.dumps(found, indent=2))
    else:
        for name, version in found.items():
            print(f"{name:<12}  {version or 'not installed'}")
    return 0
