"""The command, stopped again and again while it scores one unit, by a signal; and what it has published in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scorer.mini import MODEL_PATH
from tests.conftest import ROOT
from tests.pipelines.faults.packaged import BUDGET

SHARDS: Final = {"a.parquet": 24}
ROWS_PER_UNIT: Final = 12
STATUS: Final = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
PATIENCE: Final = 240.0


@dataclass
class Stopped:
    """Runs of one output on the packaged model in bfloat16.

    Attributes:
        options: of the command, beside the model's.
        environment: of the command, beside this process's.
        said: what each run wrote to standard error.
    """

    dataset: Path
    output: Path
    options: Sequence[str] = ("--executor", "local")
    environment: Mapping[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def stop(self, with_signal: signal.Signals) -> int:
        """Begin a run, wait until it attempts or isolates the first unit, send the signal; return the exit status."""
        before = self.attempts(), sacrificial()
        with self._begin() as run:
            deadline = time.monotonic() + PATIENCE
            while self.attempts() <= before[0] and not sacrificial() - before[1]:
                assert run.poll() is None, f"the run ended before its attempt: {run.communicate()[1]}"
                assert time.monotonic() < deadline, f"no attempt in {PATIENCE} s"
                time.sleep(0.002)
            run.send_signal(with_signal)
            self.said.append(run.communicate(timeout=PATIENCE)[1])
        assert not (self.output / "_SUCCESS").exists()
        return run.returncode

    def finish(self) -> dict[str, bytes]:
        """Run to the end, and return the published files."""
        with self._begin() as run:
            self.said.append(run.communicate(timeout=PATIENCE)[1])
        assert run.returncode == 0, self.said[-1]
        return {name: (self.output / name).read_bytes() for name in SHARDS}

    def attempts(self) -> int:
        """How many attempts at scoring the first unit there have been."""
        return len(list((self.output / "_attempts").glob(f"[!.]*-0-{ROWS_PER_UNIT}.score.*")))

    def _begin(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pipelines.score_dataset", "--input", str(self.dataset)]
        command += ["--output", str(self.output), "--model", str(MODEL_PATH), "--dtype", "bfloat16"]
        command += ["--rows-per-unit", str(ROWS_PER_UNIT), "--max-batch-tokens", str(BUDGET), *self.options]
        environment = {**os.environ, **self.environment, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A shell lets what it runs in the background ignore Ctrl-C, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )


def sacrificial() -> set[str]:
    """The process ids of this machine's processes in which units are isolated."""
    found = set[str]()
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if b"isolation.row_worker" in (process / "cmdline").read_bytes():
                found.add(process.name)
    return found
