"""Store objects in a directory on this machine or on a mounted file system."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO

from pipelines.output.store.errors import explained


class LocalStore:
    """See :class:`pipelines.output.store.Store`.

    Every object is written to a hidden file in its target directory, synced, and moved into place.
    """

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
                    os.link(temporary, path)  # unlike rename, fails if the name is taken
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
            with suppress(FileNotFoundError):  # it was moved into place
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
    """Sync a directory: only then do its new names survive a crash."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
