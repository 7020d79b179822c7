"""``--max-failed-rows``: how many rows may fail before a finished run counts as failed."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class FailedRows:
    """A limit on failed rows: a count, or a share of all rows (0 to 1)."""

    count: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a limit such as ``100`` or ``0.5%``. Raises ArgumentTypeError."""
        number = text.strip().removesuffix("%")
        try:
            if number == text.strip():
                value = int(number)
                if value >= 0:
                    return cls(count=value)
            else:
                percent = float(number)
                if math.isfinite(percent) and 0 <= percent <= 100:
                    return cls(share=percent / 100)
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number of rows, such as 100, nor a share, such as 0.5%"
        )

    def __str__(self) -> str:
        return f"{self.count}" if self.share is None else f"{100 * self.share:g}%"

    def allows(self, failed: int, rows: int) -> bool:
        """Return whether ``failed`` out of ``rows`` is within the limit."""
        return failed <= (self.count if self.count is not None else (self.share or 0.0) * rows)

    def verdict(self, summary: Mapping[str, Any]) -> str | None:
        """Return what is wrong with a finished run, or None if it is within the limit."""
        failed, rows = int(summary["failed"]), int(summary["rows"])
        if self.allows(failed, rows):
            return None
        causes = ", ".join(f"{failure['count']:,} {code}" for code, failure in summary["failures"].items())
        return (
            f"{failed:,} of {rows:,} rows failed ({failed / rows:.2%}: {causes}), more than --max-failed-rows {self}; "
            "every row is in the output, each failed one with its reason. Fix the causes, or allow more failures."
        )
