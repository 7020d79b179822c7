#!/usr/bin/env python
"""Score a dataset: ``python pipelines/score_dataset.py --input DIR --output DIR`` (see ``--help``)."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    # Python puts a script's folder first on sys.path. The repository root replaces it: the script then runs from a
    # checkout that is not installed, and no file beside it can shadow another package's module.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from scorer.command_line.process import run_command

    sys.exit(run_command(lambda: import_module("pipelines.cli.score").main(), owns_process=True))
