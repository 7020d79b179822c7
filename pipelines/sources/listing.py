"""List the files of an input: a file, a directory (recursive) or a glob, local or any URL that fsspec opens."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import fsspec

from scorer.errors import ConfigError
from scorer.storage import open_url

_WILDCARDS: Final = frozenset("*?[")
_ETAG_KEYS: Final = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "blob_id",
    "generation",
    "LastModified",
    "mtime",
    "updated",
)
_DIGEST_LIMIT: Final = 16 * 2**20


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of an input. ``path`` is the file system's, ``name`` relative to the input's root, ``size`` in bytes."""

    path: str
    name: str
    size: int
    etag: str


def open_input(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of an input and its path there. Raises what :func:`scorer.storage.open_url` raises."""
    return open_url(url, "input")


def is_local(fs: fsspec.AbstractFileSystem) -> bool:
    """Whether paths of this file system are local paths."""
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return "file" in protocols


def display_path(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """Return a path of this file system as a user would write it: a local path, or a URL."""
    return str(Path(path)) if is_local(fs) else str(fs.unstrip_protocol(path))


def is_glob(path: str) -> bool:
    """Whether a path or a part of one contains a wildcard."""
    return not _WILDCARDS.isdisjoint(path)


def glob_root(path: str) -> str:
    """Return the folder that contains all matches of a glob: the parts before its first wildcard, or all of them."""
    return "/".join(takewhile(lambda part: not is_glob(part), path.split("/")))


def list_files(url: str, suffixes: tuple[str, ...]) -> list[FileInfo]:
    """List the files of an input, sorted by name.

    A directory counts only files that end in one of ``suffixes``; a file or a glob may have any suffix. Names with a
    component below the root that starts with ``.`` or ``_`` are skipped, as in Spark, Hive and Arrow.

    Raises:
        ConfigError: the input has no such files, or may not be read.
    """
    fs, found = _visible(url, suffixes)
    files = [FileInfo(path, name, int(info["size"]), _etag(fs, path, info)) for name, path, info in found]
    return sorted(files, key=lambda file: file.name)


def list_names(url: str, suffixes: tuple[str, ...]) -> list[str]:
    """List the names of the same files without reading any. Raises ConfigError as :func:`list_files` does."""
    return [name for name, _, _ in _visible(url, suffixes)[1]]


def _visible(
    url: str, suffixes: tuple[str, ...]
) -> tuple[fsspec.AbstractFileSystem, list[tuple[str, str, Mapping[str, Any]]]]:
    """Return name, path and the file system's information for every file that counts."""
    fs, path = open_input(url)
    try:
        root, found = _find(fs, path, suffixes)
    except PermissionError as error:
        raise ConfigError(f"input {url!r} may not be read: {error}; check its permissions or credentials") from error
    except FileNotFoundError:
        root, found = path, {}
    files = []
    for file_path, info in found.items():
        name = posixpath.relpath(file_path, root)
        if any(part.startswith((".", "_")) for part in name.split("/")) and file_path != path:
            continue
        files.append((name, file_path, info))
    if not files:
        raise ConfigError(_nothing_found(url, fs.exists(path), suffixes))
    return fs, files


def _find(
    fs: fsspec.AbstractFileSystem, path: str, suffixes: tuple[str, ...]
) -> tuple[str, dict[str, Mapping[str, Any]]]:
    if fs.isfile(path):
        return posixpath.dirname(path), {path: fs.info(path)}
    if fs.isdir(path):
        found = fs.find(path, detail=True)
        return path, {name: info for name, info in found.items() if name.endswith(suffixes)}
    if not is_glob(path):
        return path, {}
    found = fs.glob(path, detail=True)
    return glob_root(path), {name: info for name, info in found.items() if info["type"] == "file"}


def _etag(fs: fsspec.AbstractFileSystem, path: str, info: Mapping[str, Any]) -> str:
    """Return the store's tag for the content; locally, a small file's digest or a large one's modification time.

    A digest survives operations that change times but not content, such as copying or unpacking an archive. For large
    files, this is not worth reading them twice.
    """
    if is_local(fs) and info["size"] <= _DIGEST_LIMIT:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    if is_local(fs):
        return f"mtime:{Path(path).stat().st_mtime_ns}"
    return next((str(info[key]).strip('"') for key in _ETAG_KEYS if info.get(key) is not None), "")


def _nothing_found(url: str, exists: bool, suffixes: tuple[str, ...]) -> str:
    if not exists:
        return f"input {url!r} does not exist; give a file, a directory or a glob (local, or a URL that fsspec opens)"
    return (
        f"input {url!r} has no file that ends in {' or '.join(suffixes)} (names starting with '.' or '_' are skipped)"
    )
