#!/usr/bin/env python
"""Delete what an output no longer needs: ``python pipelines/compact.py OUTPUT`` (see ``--help``)."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # As in score_dataset.py: the repository root replaces this script's folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pipelines.cli.compact import main

    sys.exit(main())
