"""Real S3 stores on loopback, started by the tests that need one. Their credentials are made up here.

A store is installed once, into a folder of its own below :func:`cache`, and started per test session on free ports,
with data that goes when the session ends. Where it cannot be installed, its tests are skipped by name, unless
TOKENSIGHT_REQUIRED_STORES names it (``swift ceph``): then that is an error.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from s3fs import S3FileSystem


class NotInstallableError(Exception):
    """A store cannot be had on this machine; says why."""


@dataclass(frozen=True)
class Endpoint:
    """Where a store listens, and who may use it."""

    url: str
    key: str
    secret: str

    def environment(self, **changed: str) -> dict[str, str]:
        """What makes every S3 client use this store, and nothing that the user has set up."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            # Older stores refuse checksums in trailers, which clients send by default since 2025.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            **changed,
        }

    def serve(self) -> None:
        """Print what a shell needs to use this store, and wait until interrupted."""
        for name, value in self.environment().items():
            print(f"export {name}={value}")
        print("# until interrupted", flush=True)
        while True:
            time.sleep(60)

    def use(self, monkeypatch: pytest.MonkeyPatch, **changed: str) -> None:
        """Make this process use the store, from now to the test's end."""
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name, value in self.environment(**changed).items():
            monkeypatch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # its keys do not know of the environment


def cache() -> Path:
    """Where stores are installed: TOKENSIGHT_STORES, or below the user's cache."""
    chosen = os.environ.get("TOKENSIGHT_STORES")
    folder = Path(chosen) if chosen else Path.home() / ".cache" / "tokensight-stores"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time installs a store."""
    with (cache() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def skip(store: str, reason: object) -> None:
    """Skip the test that needs a store, or fail where the store is required."""
    message = f"{store} is not available: {reason}"
    if store in os.environ.get("TOKENSIGHT_REQUIRED_STORES", "").split():
        pytest.fail(message)
    pytest.skip(message)


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 120) -> None:
    """Until something listens. Raises AssertionError with the log where the process ends or time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"{process.args!r} does not listen on port {port}:\n{log.read_text()[-4000:]}")


@contextmanager
def daemon(
    command: list[str], log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, and the group that it leads, for as long as the block lasts."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the group that this process was made the leader of
        process.wait()
