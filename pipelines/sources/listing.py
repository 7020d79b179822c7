"""Which files an input names: a file, a directory (recursive) or a glob, local or any URL that fsspec opens."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.core import url_to_fs

from scorer.errors import ConfigError

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
    """One file of an input: its path as the file system knows it, its name relative to the input's root."""

    path: str
    name: str
    size: int
    etag: str


def open_input(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of an input and its path there.

    Raises:
        ConfigError: the URL's protocol is unknown, or its package is not installed.
    """
    try:
        fs, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"input {url!r} cannot be opened: {error}") from error
    return fs, str(path)


def is_local(fs: fsspec.AbstractFileSystem) -> bool:
    """Whether paths of this file system are paths of the machine."""
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return "file" in protocols


def display_path(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """A path of this file system as a user would name it: a local path, or a URL."""
    return str(Path(path)) if is_local(fs) else str(fs.unstrip_protocol(path))


def is_glob(path: str) -> bool:
    """Whether a path or a part of it holds a wildcard, and so stands for the paths that match it."""
    return not _WILDCARDS.isdisjoint(path)


def glob_root(path: str) -> str:
    """The folder that all matches of a glob lie below: its parts before the first wildcard; a plain path itself."""
    return "/".join(takewhile(lambda part: not is_glob(part), path.split("/")))


def list_files(url: str, suffixes: tuple[str, ...]) -> list[FileInfo]:
    """The files of an input, sorted by name.

    In a directory, files that end in one of ``suffixes`` are taken; a file or a glob is taken at its word. Whatever
    has a component that starts with ``.`` or ``_`` below the root is skipped, as Spark, Hive and Arrow do.

    Raises:
        ConfigError: nothing is there, or it cannot be read.
    """
    fs, found = _visible(url, suffixes)
    files = [FileInfo(path, name, int(info["size"]), _etag(fs, path, info)) for name, path, info in found]
    return sorted(files, key=lambda file: file.name)


def list_names(url: str, suffixes: tuple[str, ...]) -> list[str]:
    """The names of the same files; none of them is read. Raises ConfigError as :func:`list_files`."""
    return [name for name, _, _ in _visible(url, suffixes)[1]]


def _visible(
    url: str, suffixes: tuple[str, ...]
) -> tuple[fsspec.AbstractFileSystem, list[tuple[str, str, Mapping[str, Any]]]]:
    """Name, path and the file system's information of every file that is taken."""
    fs, path = open_input(url)
    try:
        root, found = _find(fs, path, suffixes)
    except PermissionError as error:
        raise ConfigError(f"input {url!r} may not be read: {error}") from error
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
    """What the store says about the content. Locally: a small file's digest, a large one's time of modification.

    A digest survives what rewrites times and not content (a copy, an unpacked archive); reading large files twice
    would cost more than that is worth.
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
        f"input {url!r} holds no file that ends in {' or '.join(suffixes)} (names starting with '.' or '_' are skipped)"
    )
