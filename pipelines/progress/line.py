"""Show progress as one updating line on a terminal, or as a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import Final, TextIO

from pipelines.formatting import duration
from pipelines.progress.snapshot import Snapshot

PLAIN_SECONDS: Final = 10.0
TERMINAL_SECONDS: Final = 0.1
_BAR: Final = 24


class ProgressLine:
    """See :class:`pipelines.progress.watch.Display`.

    Args:
        stream: where to write; standard error by default, because standard output is for results.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._shown = time.monotonic()
        self._last: str | None = None
        self._writing = threading.Lock()

    def begin(self, snapshot: Snapshot) -> None:
        if snapshot.done:
            self._write(f"{snapshot.done:,} of {snapshot.rows:,} rows are already scored\n")
        if snapshot.done < snapshot.rows:
            left = snapshot.rows - snapshot.done
            started = "" if snapshot.workers is not None and snapshot.workers.shared else "starting workers and "
            self._write(f"scoring {left:,} rows; {started}loading the model\n")

    def add(self, snapshot: Snapshot) -> None:
        with self._writing:
            if time.monotonic() - self._shown >= (TERMINAL_SECONDS if self._terminal else PLAIN_SECONDS):
                self._show(snapshot)

    def tick(self, snapshot: Snapshot) -> None:
        if snapshot.tally.rows:
            self.add(snapshot)

    def end(self, snapshot: Snapshot) -> None:
        if snapshot.tally.rows:
            with self._writing:
                if self._line(snapshot) != self._last:
                    self._show(snapshot)
            if self._terminal:
                self._write("\n")

    def _show(self, snapshot: Snapshot) -> None:
        self._shown = time.monotonic()
        self._last = line = self._line(snapshot)
        self._write(f"\r{line}\x1b[K" if self._terminal else line + "\n")

    def _line(self, snapshot: Snapshot) -> str:
        parts = [
            f"{snapshot.done:,}/{snapshot.rows:,} rows ({snapshot.share:.0%})",
            f"{_number(snapshot.rows_per_second)} rows/s",
            f"{_number(snapshot.tokens_per_second)} tokens/s",
            f"ETA {duration(snapshot.seconds_left)}",
            *([f"text-only {snapshot.tally.text_only:,}"] if snapshot.tally.text_only else []),
            f"failed {snapshot.tally.failed:,}",
        ]
        if snapshot.workers is not None and not snapshot.workers.shared:
            parts.append(f"actors {snapshot.workers.alive}/{snapshot.workers.scorers}")
        if snapshot.limit is not None:
            parts.append(f"limit {snapshot.limit} ({snapshot.busy[snapshot.limit]:.0%} busy)")
        bar = f"{'█' * int(snapshot.share * _BAR):░<{_BAR}} " if self._terminal else "progress: "
        return bar + " · ".join(parts)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
