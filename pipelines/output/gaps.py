"""Count the log-probability gaps of a published shard's rows, by contrast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa

from scorer import contrasts
from scorer.columns import REQUIRED, by_contrast, of_contrast, undefined
from scorer.decoding import scored_rows, token_column
from scorer.errors import RunError
from scorer.table import read_metadata
from scorer.weighting.dataset_gaps import DatasetGaps

Gaps: TypeAlias = Mapping[str, DatasetGaps]
"""The gaps with each contrast of a run, by its name; empty for a model without images, which has none."""

_CLEAN: Final = next(column for column in REQUIRED if column.name == "logprob_clean")


def gaps_of(table: pa.Table, where: str) -> Gaps:
    """Count the rows of a unit that were scored; text-only and failed rows have no gap.

    Args:
        where: what the rows are, for the message.

    Raises:
        RunError: a gap is not finite, though its row was scored.
    """
    fingerprint = read_metadata(table.schema, where).get("fingerprint", {})
    if _CLEAN.name in undefined(fingerprint):
        return {}
    first, *further = contrasts.of_run(fingerprint)
    _, of_first = by_contrast()
    columns = {first: of_first, **{name: of_contrast(name)[1] for name in further}}
    rows = scored_rows(table.select(["status", _CLEAN.name, *(column.name for column in columns.values())]))
    clean = token_column(rows, _CLEAN)
    found = {}
    for contrast, column in columns.items():
        values = token_column(rows, column).values
        try:
            found[contrast] = DatasetGaps.of(clean.values.astype(np.float64) - values.astype(np.float64), clean.edges)
        except ValueError as error:
            raise RunError(f"the gaps of {where} with the contrast {contrast}: {error}") from error
    return found


def sum_gaps(parts: Iterable[Gaps]) -> Gaps:
    """Add up the gaps of parts of a dataset, whatever their order."""
    total: dict[str, DatasetGaps] = {}
    for part in parts:
        for contrast, gaps in part.items():
            total[contrast] = total.get(contrast, DatasetGaps()) + gaps
    return total


def to_dict(gaps: Gaps) -> dict[str, Any]:
    """Return gaps as plain data."""
    return {contrast: found.to_dict() for contrast, found in gaps.items()}


def from_dict(document: Any) -> Gaps:
    """Parse what :func:`to_dict` returns. Raise ValueError if it is damaged."""
    if not isinstance(document, Mapping):
        raise ValueError(f"its gaps are {document!r:.40}, not a mapping of contrasts")
    return {contrast: DatasetGaps.from_dict(found) for contrast, found in document.items()}
