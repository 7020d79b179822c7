"""Where a run keeps its objects: a local directory, or a bucket that fsspec writes to.

Three promises carry the commit protocol: an object appears whole or not at all, :meth:`Store.create` has one winner,
and a listing shows what was written before it.
"""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, Protocol

import fsspec
from fsspec.core import url_to_fs

from scorer.errors import ConfigError

CREATES: Final = frozenset({"s3", "s3a", "gs", "gcs", "memory"})
"""Protocols whose fsspec file system has a conditional create. Others would overwrite silently: refused."""


class Store(Protocol):
    """Objects by key, POSIX paths relative to ``root``. Pickles, so that workers write to it too."""

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
        """Write the object unless one is there; False if one was. Of concurrent creators, one gets True."""
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
        return self._path(key).read_bytes()

    def put(self, key: str, data: bytes) -> None:
        with self.staged(key) as file:
            file.write(data)

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        with self._temporary(path) as (temporary, file):
            file.write(data)
            _sync(file)
            try:
                os.link(temporary, path)  # unlike rename, fails where the name is taken
            except FileExistsError:
                return False
        _sync_directory(path.parent)
        return True

    @contextmanager
    def staged(self, key: str) -> Iterator[IO[bytes]]:
        path = self._path(key)
        with self._temporary(path) as (temporary, file):
            yield file
            _sync(file)
            temporary.replace(path)
        _sync_directory(path.parent)

    def sizes(self) -> dict[str, int]:
        return dict(_walk(self.root, ""))

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


class ObjectStore:
    """A prefix in a bucket. One PUT makes an object; large ones are uploaded in parts that complete at once."""

    def __init__(self, root: str) -> None:
        self.root = root

    @property
    def _fs(self) -> fsspec.AbstractFileSystem:
        return url_to_fs(self.root)[0]  # cached by fsspec, per process

    def get(self, key: str) -> bytes:
        return bytes(self._fs.cat_file(self._url(key)))

    def put(self, key: str, data: bytes) -> None:
        self._fs.pipe_file(self._url(key), data)

    def create(self, key: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(self._url(key), data, mode="create")
        except OSError as error:
            # A lost race is FileExistsError (AWS), or EINVAL where the store's 412 does not name the condition.
            if isinstance(error, FileExistsError) or (error.errno == errno.EINVAL and self._exists(key)):
                return False
            raise
        return True

    @contextmanager
    def staged(self, key: str) -> Iterator[IO[bytes]]:
        # Never fs.open(..., "wb"): an exception inside its block still publishes what was written so far.
        with tempfile.TemporaryDirectory(prefix="tokensight-") as folder:
            path = Path(folder) / "object"
            with path.open("x+b") as file:
                yield file
            self._fs.put_file(str(path), self._url(key))

    def sizes(self) -> dict[str, int]:
        fs = self._fs
        fs.invalidate_cache()
        prefix = str(fs._strip_protocol(self.root)).rstrip("/") + "/"
        found: dict[str, dict[str, Any]] = fs.find(prefix, detail=True)
        keys = ((path.removeprefix(prefix), int(info["size"])) for path, info in found.items())
        return {key: size for key, size in keys if not _hidden(key)}

    def _exists(self, key: str) -> bool:
        self._fs.invalidate_cache()
        return bool(self._fs.exists(self._url(key)))

    def _url(self, key: str) -> str:
        return f"{self.root}/{key}"


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


def _hidden(key: str) -> bool:
    return any(part.startswith(".") for part in key.split("/"))


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
