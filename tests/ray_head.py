"""A Ray head of the tests' own, started as a cluster's operator starts one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.ports import free_ports

BIN: Final = Path(sys.executable).parent
CPUS: Final = 4


@dataclass(frozen=True)
class Head:
    """Where it is reached.

    Attributes:
        address: for drivers.
        dashboard: for ``ray job submit``.
        environment: what it was started with, and its clients want.
    """

    address: str
    dashboard: str
    environment: dict[str, str]


@contextmanager
def started_head(python_path: Path) -> Iterator[Head]:
    """A head with ports and a folder of its own, and :data:`CPUS` logical CPUs; workers import from ``python_path``."""
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port")
    names += ("metrics-export-port", "ray-client-server-port", "runtime-env-agent-port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",  # a job's `python` is the head's
        "PYTHONPATH": str(python_path),
        # A worker that is idle is ended after a second, and the next task starts another, at two seconds of CPU.
        "RAY_idle_worker_killing_time_threshold_ms": "600000",
    }
    # A short path: sockets lie below it, and their names are limited to 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [str(BIN / "ray"), "start", "--head", "--block", f"--num-cpus={CPUS}", f"--temp-dir={folder}"]
        command += ["--node-ip-address=127.0.0.1", "--include-dashboard=true"]
        command += [f"--{name}={port}" for name, port in ports.items()]
        log = (Path(folder) / "head.log").open("wb")
        with log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
            try:
                dashboard = f"http://127.0.0.1:{ports['dashboard-port']}"
                _wait_for(f"{dashboard}/api/version", process, Path(log.name))
                yield Head(f"127.0.0.1:{ports['port']}", dashboard, environment)
            finally:
                _end(process)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"no answer from {url}:\n{log.read_text()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the head and what it started, by process id."""
    family = _descendants(process.pid)
    process.kill()  # asked politely, it waits for every component in turn
    process.wait()
    for pid, started in family.items():
        if _started(pid) == started:  # the same process still, and not another that was given its number
            os.kill(pid, signal.SIGKILL)


def _descendants(root: int) -> dict[int, str]:
    """Every living descendant's process id, and when it was started."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields is not None:
                parents[int(entry.name)] = int(fields[1])
    found, frontier = set[int](), {root}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier}
        found |= frontier
    starts = {pid: _started(pid) for pid in found}
    return {pid: started for pid, started in starts.items() if started is not None}


def _started(pid: int) -> str | None:
    fields = _stat(pid)
    return None if fields is None else fields[19]


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; None for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
