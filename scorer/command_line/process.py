"""Run a command: what signals, a closed or full standard output and a missing package look like, in one place."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final, cast

from scorer.errors import MissingPackageError

STOPPED: Final = 1
WRONG: Final = 2
INTERRUPTED: Final = 130
TERMINATED: Final = 143

INTERRUPTIONS: Final = f"""\
  {INTERRUPTED}  interrupted (Ctrl-C, SIGINT)
  {TERMINATED}  terminated (SIGTERM)
"""
"""The last lines of every command's list of exit statuses."""


class TerminatedError(KeyboardInterrupt):
    """The process was asked to end by SIGTERM. What ends well on Ctrl-C ends well on it."""


def run_command(run: Callable[[], int], *, owns_process: bool) -> int:
    """Run a command and return its exit status.

    A reader that closes standard output, such as ``head``, ends the command quietly with 0; if standard output cannot
    be written for another reason, the status is 1. Ctrl-C is 130, SIGTERM 143 and a missing package 2. Each is one line
    on standard error. Characters that an output's encoding lacks are escaped.

    Args:
        run: imports and runs the command, and returns its exit status.
        owns_process: whether the process ends after the command. SIGTERM is then handled as Ctrl-C is, and an
            interrupted command ends without waiting for the threads that still run.
    """
    ending = _Ending()
    if owns_process:
        atexit.register(ending.leave)  # first in, last out: libraries clean up before it
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _terminate)
    _prepare_streams()
    stdout = sys.stdout
    output = _Output(stdout)
    sys.stdout = cast(Any, output)
    try:
        try:
            ending.status = run()
        finally:
            output.flush()
    except _OutputError as error:
        _discard(stdout)
        if isinstance(error.cause, BrokenPipeError):
            ending.status = 0
        else:
            ending.status = fail(f"standard output cannot be written: {error.cause}; free or replace it", STOPPED)
    except KeyboardInterrupt as error:
        ending.status = fail_interrupted(error)
    except MissingPackageError as error:
        ending.status = fail(error, WRONG)
    finally:
        sys.stdout = stdout
    return ending.status


def fail(error: object, status: int, advice: str | None = None) -> int:
    """Print an error, and advice on a line of its own, to standard error; return ``status``."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    if advice is not None:
        print(advice, file=sys.stderr, flush=True)
    return status


def fail_interrupted(error: KeyboardInterrupt, advice: str | None = None) -> int:
    """Print how the command was interrupted, and advice; return the status."""
    if isinstance(error, TerminatedError):
        return fail("terminated", TERMINATED, advice)
    return fail("interrupted", INTERRUPTED, advice)


class _Ending:
    status = 0

    def leave(self) -> None:
        """End an interrupted process at once: the interpreter would stop daemon threads inside torch's or pyarrow's
        C++, which aborts the process ("terminate called without an active exception")."""
        if self.status in (INTERRUPTED, TERMINATED):
            sys.stderr.flush()
            os._exit(self.status)


def _terminate(signum: int, frame: object) -> None:
    raise TerminatedError


class _OutputError(Exception):
    """Standard output cannot be written. It is no OSError: commands report those as their own."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Output:
    """Standard output whose errors are :class:`_OutputError`."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except OSError as error:
            raise _OutputError(error) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise _OutputError(error) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _prepare_streams() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before the start, as by >&-
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard(stream: Any) -> None:
    """Send what the stream still holds nowhere; the interpreter would fail to flush it at the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
