"""List the files of an input: a file, a directory (recursive) or a glob, local or any URL that fsspec opens."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem
from fsspec.utils import glob_translate

from pipelines.sources.account import HIDDEN, NO_SUFFIX, PassedOver, describe_reasons
from pipelines.sources.walking import BROKEN, FILE, FOLDER, Entry, entry_of, walk, walk_listed
from scorer.documents import is_text
from scorer.errors import ConfigError
from scorer.storage import open_url

PUBLISHED: Final = ".parquet"
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
_REVISION: Final = re.compile(r"(?:.*/)?snapshots/[0-9a-f]{40}(?=/)")
"""The folder of one revision in a hub cache, which links to the files of all."""
_DIGEST_LIMIT: Final = 16 * 2**20


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of an input. ``path`` is the file system's, ``name`` relative to the input's root, ``size`` in bytes."""

    path: str
    name: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of an input, sorted by name, and what was seen beside them."""

    files: Sequence[FileInfo]
    passed_over: PassedOver


@dataclass(frozen=True, slots=True)
class _Found:
    """Something at or below an input; ``info`` is the file system's own record, and empty for a local path."""

    name: str
    entry: Entry
    info: Mapping[str, Any]


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


def has_suffix(name: str, suffixes: Iterable[str]) -> bool:
    """Whether a file name ends in one of the suffixes, whatever its case."""
    return name.lower().endswith(tuple(suffixes))


def list_files(url: str, suffixes: tuple[str, ...], passes_over: re.Pattern[str] | None = None) -> Listing:
    """List the files of an input.

    A directory counts only files that end in one of ``suffixes``, in any case; a file may have any suffix, and so may
    the matches of a glob, unless some end in one of ``suffixes``: the others are passed over then.
    Links are followed. Names with a component below the root that starts with ``.`` or ``_`` are passed over, as in
    Spark, Hive and Arrow. Whatever is passed over is counted with its reason.

    Args:
        passes_over: base names in a directory that are no shards in spite of their suffix.

    Raises:
        ConfigError: the input has no such files, or something in it may not be read, or a shard is a link that leads
            nowhere.
    """
    fs, found, passed_over = _visible(url, suffixes, passes_over)
    files = []
    for one in found:
        size, path = one.entry.size, one.entry.path
        if not is_text(one.name):
            raise ConfigError(f"the name of the shard {one.name!r} is not valid UTF-8; rename it")
        try:
            files.append(FileInfo(path, one.name, size, _etag(fs, path, size, one.info)))
        except OSError as error:
            raise _unreadable(url, error) from error
    return Listing(sorted(files, key=lambda file: file.name), passed_over)


def list_names(url: str, suffixes: tuple[str, ...], refused: tuple[str, ...] = ()) -> list[str]:
    """List the names of the same files without reading any, and of files that end in ``refused``.

    Raises ConfigError as :func:`list_files` does; its message names ``suffixes`` only.
    """
    return [one.name for one in _visible(url, suffixes, None, refused)[1]]


def published_names(names: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """Replace the format's suffix by ``.parquet`` in every name. Raise ConfigError if two names become equal."""
    found: dict[str, str] = {}
    for name in names:
        suffix = max((suffix for suffix in suffixes if has_suffix(name, [suffix])), key=len, default="")
        published = name[: len(name) - len(suffix)] + PUBLISHED
        if published in found:
            raise ConfigError(
                f"the scores of {found[published]} and of {name} would both be published as {published}; rename one, "
                "or score them into different outputs"
            )
        found[published] = name
    return list(found)


def _visible(
    url: str, suffixes: tuple[str, ...], passes_over: re.Pattern[str] | None, refused: tuple[str, ...] = ()
) -> tuple[fsspec.AbstractFileSystem, list[_Found], PassedOver]:
    """Return every file that counts, and count the others."""
    fs, path = open_input(url)
    passed_over = PassedOver()
    try:
        is_folder, everything = _find(fs, path)
        files, hidden = [], set()
        for one in everything:
            shown, is_hidden = _up_to_hidden(one.name)
            if is_hidden and one.entry.path != path:
                if shown not in hidden:
                    hidden.add(shown)
                    passed_over.add(HIDDEN, shown)
            elif one.entry.kind == FOLDER:
                if not is_folder:  # matched by a glob
                    passed_over.add(FOLDER, one.name)
            elif is_folder and not has_suffix(one.name, (*suffixes, *refused)):
                kind = one.entry.kind
                passed_over.add(_suffix(one.name) if kind == FILE else kind, one.name)
            elif one.entry.kind == BROKEN:
                raise ConfigError(
                    f"{display_path(fs, one.entry.path)} is a link to a file that does not exist; download that file, "
                    "or delete the link"
                )
            elif one.entry.kind != FILE and one.entry.path == path:
                raise ConfigError(f"input {url!r} is a {one.entry.kind}; give a regular file, a directory or a glob")
            elif one.entry.kind != FILE:
                passed_over.add(one.entry.kind, one.name)
            elif is_folder and passes_over is not None and passes_over.fullmatch(posixpath.basename(one.name)):
                passed_over.add("cache files", one.name)
            else:
                files.append(one)
        if not is_folder:
            files = _without_other_suffixes(files, suffixes, passed_over)
        exists = bool(files) or fs.exists(path)
    except FileNotFoundError:
        files, exists = [], False
    except OSError as error:
        raise _unreadable(url, error) from error
    if not files:
        raise ConfigError(_nothing_found(url, exists, suffixes, passed_over))
    if is_folder:  # a glob says which files are meant
        _refuse_revisions(url, [one.entry.path for one in files])
    return fs, files, passed_over


def _refuse_revisions(url: str, paths: Sequence[str]) -> None:
    """Raise ConfigError for several revisions of a dataset in a hub cache: rows that they share would be scored twice.

    Several datasets of one revision each are fine.
    """
    found: dict[str, set[str]] = {}
    for revision in {match[0] for path in paths if (match := _REVISION.match(path))}:
        found.setdefault(posixpath.dirname(revision), set()).add(revision)
    several = next((sorted(revisions) for revisions in found.values() if len(revisions) > 1), None)
    if several is not None:
        raise ConfigError(
            f"input {url!r} has {len(several)} revisions of one dataset, {several[0]} and {several[1]}; give the "
            "folder of one"
        )


def _without_other_suffixes(files: list[_Found], suffixes: tuple[str, ...], passed_over: PassedOver) -> list[_Found]:
    """Pass over what a glob matches beside files of the format, such as the images beside ``metadata.jsonl``.

    If no match has a suffix of the format, or one has none at all, it is taken at its word.
    """
    if not any(has_suffix(one.name, suffixes) for one in files):
        return files
    kept = []
    for one in files:
        if has_suffix(one.name, suffixes) or _suffix(one.name) == NO_SUFFIX:
            kept.append(one)
        else:
            passed_over.add(_suffix(one.name), one.name)
    return kept


def _find(fs: fsspec.AbstractFileSystem, path: str) -> tuple[bool, Iterator[_Found]]:
    """Return whether the input is a folder, and everything that it contains or matches. Raises OSError."""
    entry, info = _at(fs, path)
    if entry is not None and entry.kind != FOLDER:
        return False, iter([_Found(posixpath.basename(path), entry, info)])
    if entry is not None:
        return True, _below(fs, path, lambda name: not _up_to_hidden(name)[1])
    if not is_glob(path):
        raise FileNotFoundError(path)
    return False, _matches(fs, path)


def _at(fs: fsspec.AbstractFileSystem, path: str) -> tuple[Entry | None, Mapping[str, Any]]:
    """Return what the very path is, if it is anything: its name may contain wildcards."""
    if is_local(fs):
        try:
            return entry_of(path), {}
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None, {}
    if fs.isfile(path):
        info = fs.info(path)
        return Entry(path, FILE, int(info.get("size") or 0)), info
    return (Entry(path, FOLDER) if fs.isdir(path) else None), {}


def _below(fs: fsspec.AbstractFileSystem, root: str, enters: Callable[[str], bool]) -> Iterator[_Found]:
    """Yield everything below a folder. Raises OSError for a folder that cannot be listed."""
    if is_local(fs):
        found: Iterator[tuple[Entry, Mapping[str, Any]]] = ((entry, {}) for entry in walk(root, enters))
    elif _lists_folders(fs):
        found = walk_listed(fs, root, enters)
    else:
        found = (
            (Entry(path, FOLDER if info["type"] == "directory" else FILE, int(info.get("size") or 0)), info)
            for path, info in fs.find(root, detail=True).items()
        )
    return (_Found(posixpath.relpath(entry.path, root), entry, info) for entry, info in found)


def _matches(fs: fsspec.AbstractFileSystem, glob: str) -> Iterator[_Found]:
    """Yield what a glob matches, by fsspec's rules; only folders that can hold a match are looked into."""
    root = glob_root(glob) or "/"
    parts = glob[len(glob_root(glob)) :].strip("/").split("/")
    whole = re.compile(glob_translate("/".join(parts)))
    deep = next((i for i, part in enumerate(parts) if "**" in part), None)
    levels = [re.compile(glob_translate("/".join(parts[: i + 1]))) for i in range(len(parts) - 1)][:deep]

    def enters(name: str) -> bool:
        depth = name.count("/")
        if _up_to_hidden(name)[1]:
            return False
        return bool(levels[depth].match(name)) if depth < len(levels) else deep is not None

    if _lists_folders(fs) or is_local(fs):
        exists = fs.isdir(root)
        return (one for one in (_below(fs, root, enters) if exists else ()) if whole.match(one.name))
    return (
        _Found(posixpath.relpath(path, root), Entry(path, FILE, int(info.get("size") or 0)), info)
        for path, info in fs.glob(glob, detail=True).items()
        if info["type"] == "file"
    )


def _lists_folders(fs: fsspec.AbstractFileSystem) -> bool:
    """Whether a remote file system lists folder by folder; object stores list all that begins with a prefix at once."""
    kind = type(fs)
    return kind.find is AbstractFileSystem.find or getattr(kind, "_find", None) is AsyncFileSystem._find


def _up_to_hidden(name: str) -> tuple[str, bool]:
    """Return a name up to its first hidden component, and whether it has one."""
    parts = name.split("/")
    at = next((i for i, part in enumerate(parts) if part.startswith((".", "_"))), None)
    return (name, False) if at is None else ("/".join(parts[: at + 1]), True)


def _suffix(name: str) -> str:
    return posixpath.splitext(name)[1].lower() or NO_SUFFIX


def _unreadable(url: str, error: OSError) -> ConfigError:
    where = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    return ConfigError(
        f"input {url!r} cannot be read completely: {where}; check its permissions or credentials, or name the files to "
        "read with a glob"
    )


def _etag(fs: fsspec.AbstractFileSystem, path: str, size: int, info: Mapping[str, Any]) -> str:
    """Return the store's tag for the content; locally, a small file's digest or a large one's modification time.

    A digest survives operations that change times but not content, such as copying or unpacking an archive. For large
    files, this is not worth reading them twice.
    """
    if is_local(fs) and size <= _DIGEST_LIMIT:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    if is_local(fs):
        return f"mtime:{Path(path).stat().st_mtime_ns}"
    return next((str(info[key]).strip('"') for key in _ETAG_KEYS if info.get(key) is not None), "")


def _nothing_found(url: str, exists: bool, suffixes: tuple[str, ...], passed_over: PassedOver) -> str:
    if not exists:
        return f"input {url!r} does not exist; give a file, a directory or a glob (local, or a URL that fsspec opens)"
    reasons = passed_over.to_dict()
    seen = f"; passed over: {describe_reasons(reasons)}" if reasons else ""
    *others, last = suffixes
    ends = f"{', '.join(others)} or {last}" if others else last
    return f"input {url!r} has no file that ends in {ends}{seen}"
