#!/usr/bin/env python
"""Score a dataset: ``python pipelines/score_dataset.py --input DIR --output DIR`` (see ``--help``)."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python puts a script's folder first on sys.path. The repository root replaces it: the script then runs from a
    # checkout that is not installed, and no file beside it can shadow another package's module.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pipelines.cli.score import main

    sys.exit(main())
