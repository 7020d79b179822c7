"""Runs that are killed by SIGKILL at a counted moment, each in a process of its own.

Every call of the operating system by which the protocol changes a file has three moments: before it, after it, and,
where it is a sync, before it with half of the data written. A run passes the same moments each time.

``python -m tests.pipelines.faults.killing`` is a nursery: it imports everything once and forks a process for every run
that it is told of, one JSON list of runs a line; it answers with their exit statuses.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pipelines.executors.local import LocalExecutor
from pipelines.output.commit import UnitMarker
from pipelines.output.plan import Unit
from pipelines.run.job import prepare
from pipelines.run.score_unit import UnitWork
from tests.pipelines.helpers import RecordingWatch, make_job

CALLS = ("fsync", "link", "replace", "unlink", "mkdir")


@dataclass(frozen=True)
class Doomed:
    """A run: where, at which moment it dies (None: it lives), and at which unit it begins (the others follow)."""

    input: str
    output: str
    fatal: int | None = None
    offset: int = 0
    moments_file: str | None = None


class Moments:
    """Counts moments, and kills this process at one of them."""

    def __init__(self, fatal: int | None) -> None:
        self.fatal = fatal
        self.passed = 0

    def patch(self) -> None:
        for name in CALLS:
            setattr(os, name, self._around(getattr(os, name), torn=name == "fsync"))

    def _around(self, call: Callable[..., Any], torn: bool) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._moment()
            if torn:
                self._moment(lambda: _tear(args[0]))
            result = call(*args, **kwargs)
            self._moment()
            return result

        return wrapped

    def _moment(self, before: Callable[[], None] = lambda: None) -> None:
        if self.passed == self.fatal:
            before()
            os.kill(os.getpid(), signal.SIGKILL)
        self.passed += 1


def _tear(handle: int) -> None:
    if not Path(f"/proc/self/fd/{handle}").is_dir():
        os.ftruncate(handle, os.fstat(handle).st_size // 2)


class RotatedExecutor(LocalExecutor):
    """Begins at another unit than its neighbours do."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def score(self, work: UnitWork, units: Sequence[Unit]) -> Iterator[UnitMarker]:
        return super().score(work, [*units[self.offset :], *units[: self.offset]])


def live(doomed: Doomed) -> None:
    """The run itself."""
    moments = Moments(doomed.fatal)
    moments.patch()
    prepare(make_job(doomed.input, doomed.output)).execute(RotatedExecutor(doomed.offset), RecordingWatch())
    if doomed.moments_file is not None:
        Path(doomed.moments_file).write_text(str(moments.passed))


class Nursery:
    """The test's end of the nursery."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, *runs: Doomed) -> list[int]:
        """Run all of them side by side; their exit codes, negative for a signal."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(doomed) for doomed in runs]) + "\n")
        self._process.stdin.flush()
        answer: list[int] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def nursery() -> Iterator[Nursery]:
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-m", "tests.pipelines.faults.killing"]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Nursery(process)
        assert process.stdin is not None
        process.stdin.close()


def main() -> None:
    import_module("pandas")  # pyarrow would import it on first use, in every child anew
    for line in sys.stdin:
        children = []
        for document in json.loads(line):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    live(Doomed(**document))
                    status = 0
                except BaseException:
                    traceback.print_exc()  # nobody above here would
                finally:
                    sys.stderr.flush()
                    os._exit(status)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main()
