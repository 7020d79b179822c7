"""Where a run keeps its objects: a local directory, or a bucket that fsspec writes to.

Three promises carry the commit protocol: an object appears whole or not at all, :meth:`Store.create` has one winner,
and a listing shows what was written before it.
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
"""Protocols whose fsspec file system has a conditional create. Others would overwrite silently: refused."""


class Store(Protocol):
    """Objects by key, POSIX paths relative to ``root``. Pickles, so that workers write to it too.

    Every method raises StoreError, with the remedy, where the storage refuses or goes on failing.
    """

    @property
    def root(self) -> str:
        """The directory or URL, for messages."""
        ...

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises FileNotFoundError."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write the object, replacing one that is there."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write the object unless one is there; False if one was. Of concurrent creators, one gets True.

        True also where these very bytes are there already: a creator whose first answer was lost has won.
        """
        ...

    @contextmanager
    def staged(self, key: str) -> Iterator[IO[bytes]]:
        """A readable and writable file that becomes the object when the block ends, and nothing if it raises."""
        ...

    def sizes(self) -> dict[str, int]:
        """Every object's key and size in bytes, hidden names left out. One listing."""
        ...


def open_store(url: str) -> Store:
    """The store at a local path or URL; nothing is created yet.

    Raises:
        ConfigError: the URL's file system is unknown or cannot create an object conditionally.
        MissingPackageError: the package of its file system is not installed.
    """
    fs, path = open_url(url, "output")
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if "file" in protocols:
        return LocalStore(str(Path(path).absolute()))
    if not protocols & CREATES:
        raise ConfigError(
            f"output {url!r}: {'/'.join(sorted(protocols))} cannot create an object only if it is absent, which "
            f"commits rest on; write to a local path or to one of {', '.join(sorted(CREATES))}"
        )
    return ObjectStore(str(fs.unstrip_protocol(path)).rstrip("/"))
