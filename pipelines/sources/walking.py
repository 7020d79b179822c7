"""Walk a local folder through its links, and tell files from what only looks like one.

A hub cache is a folder of links to files, and people link folders into a dataset, so links are followed. A link to a
folder that contains it would never end, and is not. What cannot be read is an error, because the shards in it would
otherwise be missing from the result without a word. Only regular files are ever opened: a named pipe would wait for
its writer forever.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fsspec

FILE: Final = "file"
FOLDER: Final = "folder"
BROKEN: Final = "broken link"
LOOP: Final = "link to a folder that contains it"

_KINDS: Final = (
    (stat.S_ISREG, FILE),
    (stat.S_ISDIR, FOLDER),
    (stat.S_ISFIFO, "named pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One name below a folder. ``kind`` is one of this module's constants or what else a file system has."""

    path: str
    kind: str
    size: int = 0


def entry_of(path: str) -> Entry:
    """Return what a local path is, links followed.

    Raises:
        FileNotFoundError: there is nothing, not even a link.
        OSError: it may not be looked at.
    """
    return _look(path, Path(path).lstat())[0]


def walk(root: str, enters: Callable[[str], bool]) -> Iterator[Entry]:
    """Yield everything below a local folder, and the folders themselves, links followed.

    Args:
        root: the folder.
        enters: whether to go into a folder, given its path relative to ``root``.

    Raises:
        OSError: a folder cannot be listed, or what is in it cannot be looked at.
    """
    found = Path(root).stat()
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [(root, ((found.st_dev, found.st_ino),))]
    while waiting:
        folder, above = waiting.pop()
        with os.scandir(folder) as listing:
            names = sorted(item.name for item in listing)
        for name in names:
            path = f"{folder.rstrip('/')}/{name}"
            try:
                entry, status = _look(path, Path(path).lstat())
            except FileNotFoundError:
                continue  # deleted since the folder was listed
            if entry.kind == FOLDER:
                identity = (status.st_dev, status.st_ino)
                if identity in above:
                    entry = Entry(path, LOOP)
                elif enters(path[len(root.rstrip("/")) + 1 :]):
                    waiting.append((path, (*above, identity)))
            yield entry


def walk_listed(
    fs: fsspec.AbstractFileSystem, root: str, enters: Callable[[str], bool]
) -> Iterator[tuple[Entry, Mapping[str, Any]]]:
    """Yield the same for a file system that lists folder by folder, and its own record of each entry.

    fsspec's ``walk`` would leave out a folder that cannot be listed: its ``on_error`` holds for the first folder only.
    """
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        for info in fs.ls(folder, detail=True):
            path = info["name"].rstrip("/")
            if info["type"] == "directory" and path != folder:
                if enters(path[len(root.rstrip("/")) + 1 :]):
                    waiting.append(path)
                yield Entry(path, FOLDER), info
            elif path != folder:
                yield Entry(path, FILE, int(info.get("size") or 0)), info


def _look(path: str, status: os.stat_result) -> tuple[Entry, os.stat_result]:
    if stat.S_ISLNK(status.st_mode):
        try:
            status = Path(path).stat()
        except PermissionError:
            raise
        except OSError:  # its target does not exist, or it leads to itself
            return Entry(path, BROKEN), status
    kind = next((kind for test, kind in _KINDS if test(status.st_mode)), "special file")
    return Entry(path, kind, status.st_size), status
