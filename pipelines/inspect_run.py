#!/usr/bin/env python
"""Inspect a run's output: ``python pipelines/inspect_run.py OUTPUT`` (see ``--help``)."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    # As in score_dataset.py: the repository root replaces this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from scorer.command_line.process import run_command

    sys.exit(run_command(lambda: import_module("pipelines.cli.inspect").main(), owns_process=True))
