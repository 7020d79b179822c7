"""Where a run keeps its objects: a local directory, or a bucket that fsspec writes to.

Three promises carry the commit protocol: an object appears whole or not at all, :meth:`Store.create` has one winner,
and a listing shows what was written before it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Final, Protocol

from fsspec.core import url_to_fs

from pipelines.object_store import ObjectStore
from pipelines.store_errors import explained
from scorer.errors import ConfigError

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
    """
    try:
        fs, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"output {url!r} cannot be opened: {error}") from error
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if "file" in protocols:
        return LocalStore(str(Path(path).absolute()))
    if not protocols & CREATES:
        raise ConfigError(
            f"output {url!r}: {'/'.join(sorted(protocols))} cannot create an object only if it is absent, which "
            f"commits rest on; write to a local path or to one of {', '.join(sorted(CREATES))}"
        )
    return ObjectStore(str(fs.unstrip_protocol(path)).rstrip("/"))


class LocalStore:
    """A directory. Every object is written to a hidden file beside its place, synced, and moved there."""

    def __init__(self, root: str) -> None:
        self.root = root

    def get(self, key: str) -> bytes:
        with self._explained("read"):
            return self._path(key).read_bytes()

    def put(self, key: str, data: bytes) -> None:
        with self.staged(key) as file:
            file.write(data)

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        with self._explained("written to"):
            with self._temporary(path) as (temporary, file):
                file.write(data)
                _sync(file)
                try:
                    os.link(temporary, path)  # unlike rename, fails where the name is taken
                except FileExistsError:
                    return path.read_bytes() == data
            _sync_directory(path.parent)
        return True

    @contextmanager
    def staged(self, key: str) -> Iterator[IO[bytes]]:
        path = self._path(key)
        with self._explained("written to"):
            with self._temporary(path) as (temporary, file):
                yield file
                _sync(file)
                temporary.replace(path)
            _sync_directory(path.parent)

    def sizes(self) -> dict[str, int]:
        with self._explained("listed"):
            return dict(_walk(self.root, ""))

    def _explained(self, doing: str) -> AbstractContextManager[None]:
        return explained(f"output {self.root}", doing)

    def _path(self, key: str) -> Path:
        return Path(self.root) / key

    @contextmanager
    def _temporary(self, path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}"
        try:
            with temporary.open("x+b") as file:
                yield temporary, file
        finally:
            with suppress(FileNotFoundError):  # moved to its place
                temporary.unlink()


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, int]]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/")
        else:
            with suppress(FileNotFoundError):  # removed since the listing
                yield prefix + entry.name, entry.stat().st_size


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    """A name is durable once its directory is."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
