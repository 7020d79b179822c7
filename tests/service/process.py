"""``python -m service`` as a process of its own: what it logs, what memory it takes, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.settings import PREFIX
from tests.service.helpers import Live

ROOT = Path(__file__).resolve().parents[2]


class Process:
    """A running service; its log, line by line."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service", "--port", "0", *arguments],
            cwd=ROOT,
            env={**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._port = threading.Event()
        self.live = Live(0)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line)
            if '"listening"' in line:
                self.live = Live(json.loads(line)["port"])
                self._port.set()
        self._port.set()

    def wait_until_ready(self) -> Live:
        assert self._port.wait(120), self.lines
        assert self.live.port, self.lines
        self.live.wait_until_ready()
        return self.live

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    @property
    def peak_bytes(self) -> int:
        """The most memory it ever had, bytes."""
        return self._status("VmHWM")

    @property
    def resident_bytes(self) -> int:
        """The memory it has, bytes."""
        return self._status("VmRSS")

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * int(status.split(f"{name}:")[1].split()[0])

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all its threads."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def reset_peak(self) -> None:
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = 60) -> int:
        code = self._process.wait(seconds)
        self._reader.join(10)
        return code

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(10)
        assert self._process.stderr is not None
        self._process.stderr.close()


@contextmanager
def service_process(*arguments: str, **environment: str) -> Iterator[Process]:
    process = Process(*arguments, **environment)
    try:
        yield process
    finally:
        process.kill()
