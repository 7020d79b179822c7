#!/usr/bin/env python
"""Score a dataset: ``python pipelines/score_dataset.py --input DIR --output DIR`` (``--help`` has the rest)."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # A script's own folder leads sys.path. The repository's root takes its place, so that this runs from a checkout
    # that is not installed, and no file beside this one can shadow another package's module.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pipelines.cli.score import main

    sys.exit(main())
