"""Store a run's objects in a local directory, or in a bucket that fsspec writes to.

The commit protocol rests on three promises: an object appears whole or not at all, :meth:`Store.create` has one
winner, and a listing shows everything written before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Protocol

from pipelines.output.store.local import LocalStore
from pipelines.output.store.object_store import ObjectStore
from scorer.errors import ConfigError
from scorer.storage import open_url

CREATES: Final = frozenset({"s3", "s3a", "gs", "gcs", "memory"})
"""Protocols whose fsspec file system has a conditional create. The others would overwrite silently, so are refused."""


class Store(Protocol):
    """Objects by key, a POSIX path relative to ``root``. A store can be pickled, because workers write to it too.

    Every method raises StoreError, with the remedy, if the storage refuses or keeps failing.
    """

    @property
    def root(self) -> str:
        """The directory or URL."""
        ...

    def get(self, key: str) -> bytes:
        """Read the object. Raise FileNotFoundError if there is none."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write the object, replacing any existing one."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write the object unless it exists, and return whether it was created. Of concurrent creators, one gets True.

        Return True also if the object exists with exactly these bytes: a creator whose first answer was lost has won.
        """
        ...

    @contextmanager
    def staged(self, key: str) -> Iterator[IO[bytes]]:
        """Yield a readable and writable file that becomes the object when the block ends, unless the block raises."""
        ...

    def sizes(self) -> dict[str, int]:
        """Return every object's size in bytes by key, without hidden names, from one listing."""
        ...


def open_store(url: str) -> Store:
    """Open the store at a local path or URL; nothing is created yet.

    Raises:
        ConfigError: the URL's file system is unknown, or cannot create an object conditionally.
        MissingPackageError: the package for the file system is not installed.
    """
    fs, path = open_url(url, "output")
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if "file" in protocols:
        return LocalStore(str(Path(path).absolute()))
    if not protocols & CREATES:
        raise ConfigError(
            f"output {url!r}: {'/'.join(sorted(protocols))} cannot create an object only if it is absent, which "
            f"commits depend on; write to a local path or to one of {', '.join(sorted(CREATES))}"
        )
    return ObjectStore(str(fs.unstrip_protocol(path)).rstrip("/"))
