"""Choose the rows to train on: those whose text the image helps most.

A row's mean log-probability gap is VIG's gain of a sample (arXiv 2602.17186), and the quantity by which VisNec
(arXiv 2603.01195) ranks samples: how much the loss falls with the image. VisNec ranks within clusters of similar
samples; here the dataset is one.

A dropped row keeps its position and its id, as a failed one does, and says why. Rows without an image are kept: they
have no gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scorer.errors import ConfigError
from scorer.weighting.dataset_gaps import DatasetGaps

DROPPED: Final = "dropped"
"""The status of a row that a selection leaves out. No published file has it."""


@dataclass(frozen=True, slots=True)
class RowSelection:
    """The rows to keep, by their mean log-probability gap with the contrast that is read. Give one of the two.

    Attributes:
        keep: the share of the scored rows to keep, in (0, 1], those with the largest mean gaps; the threshold follows
            from the gaps that a finished run records, and rows that share its bin are kept, too.
        min_gap: the smallest mean gap of a kept row, in nats.

    Raises:
        ConfigError: both are given or neither, or one is out of range.
    """

    keep: float | None = None
    min_gap: float | None = None

    def __post_init__(self) -> None:
        if (self.keep is None) == (self.min_gap is None):
            raise ConfigError(
                f"a selection of rows has keep {self.keep} and min_gap {self.min_gap}; give one of them: the share of "
                "rows to keep, or the smallest mean gap"
            )
        if self.keep is not None and not 0 < self.keep <= 1:
            raise ConfigError(f"the share of rows to keep is {self.keep}; it must lie in (0, 1]")
        if self.min_gap is not None and not math.isfinite(self.min_gap):
            raise ConfigError(f"the smallest mean gap of a row is {self.min_gap}; it must be a finite number of nats")

    def threshold(self, gaps: Callable[[], DatasetGaps]) -> float:
        """Return the smallest mean gap of a kept row, in nats. ``gaps`` is called only if it follows from them."""
        if self.min_gap is not None:
            return self.min_gap
        assert self.keep is not None
        return gaps().rows.top(self.keep)[0]
