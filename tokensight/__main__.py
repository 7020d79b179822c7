"""Run ``python -m tokensight``: the same command, for when its script is not on the path."""

from __future__ import annotations

import sys

from tokensight.command import main

if __name__ == "__main__":
    sys.exit(main())
