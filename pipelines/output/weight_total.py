"""Add up the weights of a published shard's scored rows."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from scorer.columns import REQUIRED, WEIGHTS
from scorer.decoding import scored_rows, token_column
from scorer.errors import RunError
from scorer.weighting.weight_total import ExactTotal

_WEIGHTS: Final = next(column for column in REQUIRED if column.name == WEIGHTS)


def add_weights(total: ExactTotal, table: pa.Table, where: str) -> None:
    """Add the weights of a unit's scored rows; text-only and failed rows do not count.

    Args:
        where: what the rows are, for the message.

    Raises:
        RunError: a weight is not finite, though its row was scored.
    """
    try:
        total.add(token_column(scored_rows(table.select(["status", WEIGHTS])), _WEIGHTS).values)
    except ValueError as error:
        raise RunError(f"{where}: {error}, though the rows were scored: report it, this is a bug") from error
