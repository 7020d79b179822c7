"""Two optional columns that only tests know: a raw score, and a flag of each token."""

from __future__ import annotations

import pyarrow as pa
import pytest

from scorer import columns
from scorer.columns import WEIGHTS, Column

TOY = Column("toy", pa.float32(), "a raw score that only tests know", "raw", required=False)
FLAG = Column("is_toy", pa.bool_(), "a flag that only tests know", "span", required=False)
NAMES = (TOY.name, FLAG.name)


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have both among the columns, before the weights."""
    at = [column.name for column in columns.COLUMNS].index(WEIGHTS)
    monkeypatch.setattr(columns, "COLUMNS", (*columns.COLUMNS[:at], TOY, FLAG, *columns.COLUMNS[at:]))
