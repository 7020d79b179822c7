"""``ray job submit`` against a head that was started separately, with the packaged sample and model."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from scorer.mini import SAMPLE_PATH
from scorer.table import OK, SCHEMA
from tests.conftest import ROOT

BIN = Path(sys.executable).parent
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",  # a job's `python` is the head's
    "RAY_AUTH_MODE": "disabled",  # a token that some other cluster left in the home directory is not this one's
    "RAY_USAGE_STATS_ENABLED": "0",
}


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """A Ray head with ports and a folder of its own; yields its dashboard's address."""
    names = (
        "port",
        "dashboard-port",
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "metrics-export-port",
    )
    ports = dict(zip((*names, "ray-client-server-port", "runtime-env-agent-port"), _free_ports(7), strict=True))
    # A short path: sockets lie below it, and their names are limited to 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=4", f"--temp-dir={folder}"]
        command += ["--include-dashboard=true", "--disable-usage-stats", *(f"--{k}={v}" for k, v in ports.items())]
        log = (Path(folder) / "head.log").open("wb")
        with log, subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log) as process:
            try:
                address = f"http://127.0.0.1:{ports['dashboard-port']}"
                _wait_for(f"{address}/api/version", process, Path(log.name))
                yield address
            finally:
                _end(process)


@pytest.mark.timeout(600)
def test_a_submitted_job_scores_the_packaged_sample(head: str, tmp_path: Path) -> None:
    output = tmp_path / "weights"
    arguments = ["--input", str(SAMPLE_PATH), "--output", str(output), "--actors", "1", "--no-report"]
    arguments += ["--cpus-per-actor", "3"]  # and one encoder: each takes seconds to load the tokenizer
    arguments += ["--max-failed-rows", "2%"]  # four of 240 are planted to fail
    command = [str(BIN / "ray"), "job", "submit", "--address", head, "--working-dir", ".", "--"]
    done = _submit([*command, "python", "pipelines/score_dataset.py", *arguments])
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    assert "rows in" in said
    summary = json.loads((output / "_SUCCESS").read_text())
    assert summary["failed"] > 0, "rows that cannot be scored are planted in the sample"
    assert summary["ok"] > summary["failed"]
    for shard in sorted(SAMPLE_PATH.glob("*.parquet")):
        original, table = pq.read_table(shard, columns=["id"]), pq.read_table(output / shard.name)
        assert table.schema.equals(SCHEMA)
        assert table["sample_id"].to_pylist() == original["id"].to_pylist()
        assert table["row_index"].to_pylist() == list(range(original.num_rows))
        for row in table.select(["status", "token_ids", "token_weights", "error"]).to_pylist():
            if row["status"] == OK:
                assert len(row["token_weights"]) == len(row["token_ids"]) > 0
            else:
                assert row["token_weights"] is None
                assert row["error"]


def _submit(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Submit and wait. A head answers before the agent that starts its jobs is up: until then, ask again."""
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
        if "submitted successfully" in done.stdout + done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


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
