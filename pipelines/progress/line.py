"""What people see while a run goes on: one updating line on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Final, TextIO

from pipelines.command.console import duration
from pipelines.run.tally import Tally

PLAIN_SECONDS: Final = 5.0
TERMINAL_SECONDS: Final = 0.1
_BAR: Final = 24


class ProgressLine:
    """See :class:`pipelines.run.job.Watch`.

    Rates count the rows that this process has had scored, over the time from its first unit's start to its last
    unit's commit: starting workers and loading models take no part in the estimate of what is left.

    Args:
        stream: where to write; standard error by default, since standard output is for results.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._rows = self._done = 0
        self._tally = Tally()
        self._shown = time.monotonic()
        self._news = False

    def begin(self, rows: int, done: int) -> None:
        self._rows, self._done = rows, done
        if done:
            self._write(f"{done:,} of {rows:,} rows are already scored\n")
        if done < rows:
            self._write(f"scoring {rows - done:,} rows; starting workers and loading the model\n")

    def add(self, tally: Tally) -> None:
        self._tally = self._tally + tally
        self._news = True
        now = time.monotonic()
        if now - self._shown >= (TERMINAL_SECONDS if self._terminal else PLAIN_SECONDS):
            self._shown = now
            self._show()

    def end(self) -> None:
        if self._news:
            self._show()
        if self._tally.rows and self._terminal:
            self._write("\n")

    def _show(self) -> None:
        self._news = False
        line = self._line()
        self._write(f"\r{line}\x1b[K" if self._terminal else line + "\n")

    def _line(self) -> str:
        seconds = self._tally.seconds
        done = self._done + self._tally.rows
        share = done / self._rows if self._rows else 1.0
        rate = self._tally.rows / seconds if seconds > 0 else 0.0
        tokens = self._tally.tokens / seconds if seconds > 0 else 0.0
        left = (self._rows - done) / rate if rate else None
        parts = [
            f"{done:,}/{self._rows:,} rows ({share:.0%})",
            f"{_number(rate)} rows/s",
            f"{_number(tokens)} tokens/s",
            f"ETA {duration(left)}",
            f"failed {self._tally.failed:,}",
        ]
        bar = f"{'█' * int(share * _BAR):░<{_BAR}} " if self._terminal else "progress: "
        return bar + " · ".join(parts)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
