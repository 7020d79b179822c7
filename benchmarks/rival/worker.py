"""Run vLLM's job in its own process, and ask it for rounds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

SCRIPT: Final = Path(__file__).with_name("job.py")
ENDS_WITHIN: Final = 60
"""Seconds in which a job whose input is closed has to end by itself."""
SURROUNDINGS: Final = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_CPU_KVCACHE_SPACE": "2",
}
RESERVED: Final = "reserved_cpus"
"""An option that vLLM takes from the environment: how many cores its CPU backend leaves to its scheduler. By
default it leaves one, which is half of two."""


class RefusedError(Exception):
    """vLLM does not do this here; the message says why."""


class Worker:
    """A job that has loaded its model.

    Attributes:
        about: vLLM's version, and the seconds that it took to start.
    """

    def __init__(self, process: subprocess.Popen[str], log: Any) -> None:
        self._process = process
        self._log = log
        self.about = self._answer()

    def run(self, way: str, number: int, encoded: bool, rows: int) -> dict[str, Any]:
        """Run a round; see ``Job.run``. Raises RefusedError if vLLM refuses the way."""
        assert self._process.stdin is not None
        request = {"way": way, "number": number, "encoded": encoded, "rows": rows}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._log.seek(0)
            causes = [one for one in self._log.read().splitlines() if "Error" in one]
            raise RefusedError(f"vLLM ended with status {status}: {causes[-1][-300:] if causes else 'no error logged'}")
        answer: dict[str, Any] = json.loads(line)
        if "refused" in answer:
            raise RefusedError(answer["refused"])
        return answer


@contextmanager
def started(python: Path, folder: Path, engine: dict[str, Any]) -> Iterator[Worker]:
    """Start a job over an exported folder; end it, and what it started, afterwards.

    Args:
        engine: vLLM's options, and :data:`RESERVED`.

    Raises:
        RefusedError: vLLM does not start with these settings.
    """
    options = dict(engine)
    reserved = {"VLLM_CPU_NUM_OF_RESERVED_CPU": str(options.pop(RESERVED))} if RESERVED in options else {}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [str(python), str(SCRIPT), str(folder), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **SURROUNDINGS, **reserved, "PATH": f"{python.parent}:{os.environ['PATH']}"},
            start_new_session=True,
        )
        try:
            yield Worker(process, log)
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Close a job's input and let it end; then kill what is left of the session that it leads."""
    assert process.stdin is not None
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(ENDS_WITHIN)
    with suppress(ProcessLookupError):  # nothing is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
