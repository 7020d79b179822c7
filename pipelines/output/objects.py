"""List an output's objects with their ages, hidden ones included, and remove them. A run's ``Store`` can do neither."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from fsspec.core import url_to_fs

_TIMES: Final = ("LastModified", "mtime", "updated", "last_modified", "created")
"""Keys under which file systems list the time of writing; ``created`` comes last, as it may be something else."""


@dataclass(frozen=True, slots=True)
class Item:
    """A listed object: key, size in bytes, time of the last write."""

    key: str
    size: int
    modified: datetime


def list_items(root: str) -> dict[str, Item]:
    """Return every object below ``root`` by key, from one listing."""
    fs, path = url_to_fs(root)
    fs.invalidate_cache()
    prefix = str(fs._strip_protocol(path)).rstrip("/") + "/"
    found: Mapping[str, Mapping[str, Any]] = fs.find(prefix, detail=True)
    items = (
        Item(name.removeprefix(prefix), int(info["size"]), _modified(fs, name, info)) for name, info in found.items()
    )
    return {item.key: item for item in items}


def modified(root: str, key: str) -> datetime | None:
    """Ask the file system when an object was last written; None if it no longer exists."""
    fs, path = url_to_fs(f"{root}/{key}")
    fs.invalidate_cache()
    try:
        return _modified(fs, path, fs.info(path))
    except FileNotFoundError:
        return None


def remove(root: str, keys: Iterable[str]) -> None:
    """Delete objects one by one; an object that no longer exists is no error."""
    fs, path = url_to_fs(root)
    for key in keys:
        with suppress(FileNotFoundError):
            fs.rm_file(f"{path.rstrip('/')}/{key}")


def _modified(fs: Any, path: str, info: Mapping[str, Any]) -> datetime:
    value = next((info[name] for name in _TIMES if info.get(name) is not None), None)
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    found = value if isinstance(value, datetime) else fs.modified(path)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
